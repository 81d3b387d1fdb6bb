//! The live side: what a loaded library remembers between calls.
//!
//! One [`Driver`] exists per loaded copy of the library. It follows the state file, keeps the session that `nvmlInit`
//! began, and turns handles into places in the scenario. It knows no C types: [`crate::abi`] is in front of it.
//!
//! The locks are the standard library's: `parking_lot` registers a thread-local destructor under contention, and a
//! library with one pending is not unmapped by `dlclose`. A program that reloads NVML after a driver upgrade depends on it.

mod events;
mod handles;
mod session;
mod source;
mod watch;

#[expect(clippy::disallowed_types, reason = "no thread-local destructors, see above")]
use std::sync::Mutex;
use std::sync::{Arc, MutexGuard, OnceLock, PoisonError};

use crate::{
    clock,
    scenario::{FileError, ReturnCode, Scenario},
};

pub(crate) use handles::{InstanceKey, Target};
pub(crate) use session::{Member, Session};
use watch::Watch;

pub(crate) type Outcome<T = ()> = Result<T, ReturnCode>;

/// Fail unless GPUs are there is the default; this flag of `nvmlInitWithFlags` waives it.
const INIT_FLAG_NO_GPUS: u32 = 1;

pub(crate) struct Driver {
    #[expect(clippy::disallowed_types, reason = "no thread-local destructors, see above")]
    watch: Mutex<Watch>,
    #[expect(clippy::disallowed_types, reason = "no thread-local destructors, see above")]
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The driver version this copy of the library belongs to: the one it found when it was loaded.
    version: Option<String>,
    session: Option<Session>,
    /// Of the last session; tells handles of different sessions apart.
    generation: u32,
}

/// The driver that this copy of the library talks to.
pub(crate) fn driver() -> &'static Driver {
    static DRIVER: OnceLock<Driver> = OnceLock::new();
    DRIVER.get_or_init(Driver::open)
}

#[expect(clippy::disallowed_types, reason = "no thread-local destructors, see above")]
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Driver {
    #[expect(clippy::disallowed_types, reason = "no thread-local destructors, see above")]
    fn open() -> Self {
        let clock = clock::unix_micros();
        Self {
            watch: Mutex::new(Watch::new(source::scenario_file())),
            state: Mutex::new(State {
                // Some bits of the clock, so that handles of a copy that was unmapped mean nothing to the next one.
                generation: u32::try_from(clock >> 8 & 0x00FF_FFFF).unwrap_or(0) << 4,
                ..State::default()
            }),
        }
    }

    /// The scenario as it is now. Without one, no driver is there.
    pub(crate) fn scenario(&self) -> Outcome<Arc<Scenario>> {
        let scenario = lock(&self.watch).look().ok_or(ReturnCode::DRIVER_NOT_LOADED)?;
        let version = &mut lock(&self.state).version;
        version.get_or_insert_with(|| scenario.driver.version.clone());
        Ok(scenario)
    }

    /// Changes the state file, as far as NVML itself can.
    pub(crate) fn edit<T>(&self, change: impl FnOnce(&mut Scenario) -> Outcome<T>) -> Outcome<T> {
        struct Refused(ReturnCode);
        impl From<FileError> for Refused {
            fn from(_: FileError) -> Self {
                Self(ReturnCode::OPERATING_SYSTEM)
            }
        }
        let file = lock(&self.watch).file().cloned().ok_or(ReturnCode::DRIVER_NOT_LOADED)?;
        file.edit(|scenario| change(scenario).map_err(Refused))
            .map_err(|Refused(code)| code)
    }

    /// `nvmlInit`: begins a session, or joins the one that is alive.
    pub(crate) fn init(&self, scenario: &Scenario, flags: u32) -> Outcome {
        let state = &mut *lock(&self.state);
        if !scenario.driver.loaded {
            return Err(ReturnCode::DRIVER_NOT_LOADED);
        }
        if state.version.as_ref() != Some(&scenario.driver.version) {
            return Err(ReturnCode::LIB_RM_VERSION_MISMATCH);
        }
        if let Some(session) = &mut state.session
            && session.epoch == scenario.driver.epoch
        {
            session.users += 1;
            return Ok(());
        }
        let generation = state.generation.wrapping_add(1);
        let users = state.session.as_ref().map_or(0, |dead| dead.users);
        let session = Session::new(scenario, generation, users + 1);
        if session.members.is_empty() && flags & INIT_FLAG_NO_GPUS == 0 {
            return Err(ReturnCode::GPU_NOT_FOUND);
        }
        state.generation = generation;
        state.session = Some(session);
        Ok(())
    }

    /// `nvmlShutdown`: the last user ends the session.
    pub(crate) fn shutdown(&self) -> Outcome {
        let state = &mut *lock(&self.state);
        let session = state.session.as_mut().ok_or(ReturnCode::UNINITIALIZED)?;
        session.users -= 1;
        if session.users == 0 {
            state.session = None;
        }
        Ok(())
    }

    /// Does something in the session, if there is one and its driver still runs.
    pub(crate) fn session<T>(&self, scenario: &Scenario, f: impl FnOnce(&mut Session) -> Outcome<T>) -> Outcome<T> {
        let state = &mut *lock(&self.state);
        let session = state.session.as_mut().ok_or(ReturnCode::UNINITIALIZED)?;
        if scenario.driver.loaded && state.version.as_ref() != Some(&scenario.driver.version) {
            return Err(ReturnCode::LIB_RM_VERSION_MISMATCH);
        }
        if session.epoch != scenario.driver.epoch {
            return Err(ReturnCode::UNINITIALIZED);
        }
        f(session)
    }
}
