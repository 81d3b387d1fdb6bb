//! The control tool: a command line in front of the scenario's verbs. Prints one line for what it did.

mod args;
mod show;

use std::{io, path::PathBuf};

pub use args::Args;
use args::{Command, Init, Instance, Mig, Proc};

use crate::{
    abi, profiles,
    scenario::{Driver, EditError, Effect, FileError, NewGpu, Presence, Process, Scenario, ScenarioFile},
};

/// Why a command did nothing.
#[derive(Debug, thiserror::Error)]
pub enum CtlError {
    #[error("which state file? Give --file FILE, or set BERTH_FAKE_NVML")]
    NoFile,
    #[error("{0} exists; --force writes it anew")]
    Exists(PathBuf),
    #[error("{0}")]
    NoSuchFunction(String),
    #[error(transparent)]
    Edit(#[from] EditError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("cannot print")]
    Print(#[from] io::Error),
}

impl CtlError {
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoFile => "NoStateFile",
            Self::Exists(_) => "StateFileExists",
            Self::NoSuchFunction(_) => "NoSuchFunction",
            Self::Edit(error) => error.reason(),
            Self::File(error) => error.reason(),
            Self::Print(_) => "CannotPrint",
        }
    }
}

/// Does what the command line says.
pub fn run(args: Args, out: &mut dyn io::Write) -> Result<(), CtlError> {
    let file = args.file.map(ScenarioFile::new);
    match args.command {
        Command::Profiles => show::profiles(out)?,
        Command::Functions => {
            for function in abi::functions() {
                writeln!(out, "{function}")?;
            }
        }
        Command::Init(init) => self::init(init, file, out)?,
        Command::Show { json } => {
            let file = file.ok_or(CtlError::NoFile)?;
            let scenario = file.load()?;
            if json {
                serde_json::to_writer_pretty(&mut *out, &scenario).map_err(io::Error::from)?;
                writeln!(out)?;
            } else {
                show::scenario(&scenario, out)?;
            }
        }
        command => {
            let file = file.ok_or(CtlError::NoFile)?;
            let done = file.edit(|scenario| change(scenario, command))?;
            writeln!(out, "{done}")?;
        }
    }
    Ok(())
}

fn init(init: Init, file: Option<ScenarioFile>, out: &mut dyn io::Write) -> Result<(), CtlError> {
    let file = init.file.map(ScenarioFile::new).or(file).ok_or(CtlError::NoFile)?;
    if file.path().exists() && !init.force {
        return Err(CtlError::Exists(file.path().to_owned()));
    }
    let mut machine = profiles::machine(&init.profile)?;
    if let Some(gpus) = init.gpus {
        machine = machine.gpus(gpus);
    }
    let mig: Vec<_> = init.mig.iter().map(String::as_str).collect();
    if !mig.is_empty() {
        machine = machine.mig(init.mig_gpus.as_deref(), &mig);
    }
    let mut scenario = machine.build(&init.seed)?;
    if let Some(version) = &init.driver {
        scenario.driver = Driver::at(version);
    }
    file.save(&scenario)?;
    let (count, driver) = (scenario.gpus.len(), &scenario.driver.version);
    writeln!(
        out,
        "{}: {} with {count} GPUs, driver {driver}",
        file.path().display(),
        init.profile
    )?;
    Ok(())
}

/// One verb. Returns what was done, in words.
fn change(scenario: &mut Scenario, command: Command) -> Result<String, CtlError> {
    Ok(match command {
        Command::Xid { gpu, code, instance } => {
            scenario.xid(&gpu, code, instance.map(Instance::ids))?;
            format!("GPU {gpu}: XID {code}")
        }
        Command::Ecc {
            gpu,
            corrected,
            location,
            count,
        } => {
            scenario.ecc(&gpu, corrected, location, count)?;
            let kind = if corrected { "corrected" } else { "uncorrected" };
            format!("GPU {gpu}: {count} {kind} errors")
        }
        Command::Event {
            gpu,
            kind,
            data,
            instance,
        } => {
            scenario.tell(&gpu, kind, data, instance.map(Instance::ids))?;
            format!("GPU {gpu}: event {kind:?}")
        }
        Command::Lose { gpu, off_bus, silent } => {
            let how = if off_bus { Presence::OffBus } else { Presence::Lost };
            scenario.lose(&gpu, how, silent)?;
            format!("GPU {gpu}: {}", if off_bus { "fallen off the bus" } else { "lost" })
        }
        Command::Restore { gpu } => {
            scenario.restore(&gpu)?;
            format!("GPU {gpu}: restored")
        }
        Command::Add { product, bus_id, uuid } => {
            let at = scenario.plug(NewGpu { product, bus_id, uuid })?;
            format!("GPU {at}: plugged in, {}", scenario.gpus[at].uuid)
        }
        Command::Remove { gpu } => format!("{}: taken out", scenario.unplug(&gpu)?.uuid),
        Command::Unload => {
            scenario.unload();
            "driver unloaded".to_owned()
        }
        Command::Load { driver } => {
            scenario.load(driver.as_deref());
            format!("driver {} loaded", scenario.driver.version)
        }
        Command::Upgrade { version } => {
            scenario.upgrade(&version);
            format!("driver is now {version}; what was loaded before does not fit it")
        }
        Command::Process(proc) => process(scenario, proc)?,
        Command::Mig(mig) => partition(scenario, mig)?,
        Command::Set { gpu, key, value } => {
            scenario.set(&gpu, &key, &value)?;
            format!("GPU {gpu}: {key} = {value}")
        }
        Command::Slow { function, ms, gpu } => {
            fault(scenario, &function, gpu.as_deref(), Effect::SlowMs(ms))?;
            format!("{function} takes {ms} ms longer")
        }
        Command::Fail { function, code, gpu } => {
            fault(scenario, &function, gpu.as_deref(), Effect::Fail(code))?;
            format!("{function} returns {code}")
        }
        Command::Hang { function, gpu } => {
            fault(scenario, &function, gpu.as_deref(), Effect::Hang)?;
            format!("{function} hangs until `clear`")
        }
        Command::Clear { function, gpu } => {
            let count = scenario.mend_calls(function.as_deref(), gpu.as_deref())?;
            format!("{count} faults cleared")
        }
        Command::Init(_) | Command::Show { .. } | Command::Profiles | Command::Functions => String::new(),
    })
}

fn process(scenario: &mut Scenario, proc: Proc) -> Result<String, CtlError> {
    match proc {
        Proc::Add {
            gpu,
            pid,
            memory_mib,
            kind,
            name,
            instance,
            sm,
        } => {
            let ids = instance.map(Instance::ids);
            let process = Process {
                pid,
                kind,
                memory_mib,
                name,
                gpu_instance: ids.map(|(gpu_instance, _)| gpu_instance),
                compute_instance: ids.map(|(_, compute_instance)| compute_instance),
                sm_utilization: sm,
            };
            scenario.add_process(&gpu, process)?;
            Ok(format!("GPU {gpu}: process {pid} uses {memory_mib} MiB"))
        }
        Proc::Remove { gpu, pid } => {
            scenario.remove_process(&gpu, pid)?;
            Ok(format!("GPU {gpu}: process {pid} ended"))
        }
    }
}

fn partition(scenario: &mut Scenario, mig: Mig) -> Result<String, CtlError> {
    let mode = |in_force| {
        if in_force {
            ""
        } else {
            " after the processes on it end and it is switched again"
        }
    };
    match mig {
        Mig::Enable { gpu } => {
            let in_force = scenario.mig_mode(&gpu, true)?;
            Ok(format!("GPU {gpu}: MIG on{}", mode(in_force)))
        }
        Mig::Disable { gpu } => {
            let in_force = scenario.mig_mode(&gpu, false)?;
            Ok(format!("GPU {gpu}: MIG off{}", mode(in_force)))
        }
        Mig::Create {
            gpu,
            profile,
            start,
            compute,
        } => {
            let id = if compute.is_empty() {
                scenario.create_mig_device(&gpu, &profile, start)?
            } else {
                scenario.create_instance(&gpu, &profile, start, &compute)?
            };
            Ok(format!("GPU {gpu}: GPU instance {id}, {profile}"))
        }
        Mig::Destroy { gpu, instance, compute } => {
            scenario.destroy_instance(&gpu, instance, compute)?;
            Ok(format!("GPU {gpu}: instance {instance} destroyed"))
        }
    }
}

fn fault(scenario: &mut Scenario, function: &str, gpu: Option<&str>, effect: Effect) -> Result<(), CtlError> {
    if function != "*" && abi::functions().all(|known| known != function) {
        return Err(CtlError::NoSuchFunction(unknown_function(function)));
    }
    Ok(scenario.break_call(function, gpu, effect)?)
}

fn unknown_function(name: &str) -> String {
    let part = name.trim_start_matches("nvml").to_lowercase();
    let like: Vec<_> = abi::functions()
        .filter(|known| !part.is_empty() && known.to_lowercase().contains(&part))
        .take(8)
        .collect();
    if like.is_empty() {
        format!("no function {name:?}; `functions` lists them, `*` is all")
    } else {
        format!("no function {name:?}; there are {}", like.join(", "))
    }
}

#[cfg(test)]
mod tests;
