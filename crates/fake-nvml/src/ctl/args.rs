//! The command line, and the help that teaches it.

use std::{path::PathBuf, str::FromStr};

use clap::{Parser, Subcommand};

use crate::scenario::{BusId, EventKind, MemoryLocation, ProcessKind, ReturnCode};

/// Writes and changes the state file of the fake NVML library.
///
/// Every program that has the library loaded sees a change at its next call; a program that waits for an event gets it
/// within milliseconds. A GPU is named by index, UUID or PCI bus id.
#[derive(Debug, Parser)]
#[command(
    name = "fake-nvml-ctl",
    version,
    after_help = "Example:
  export BERTH_FAKE_NVML=gpus.json
  fake-nvml-ctl init --profile dgx-h100
  fake-nvml-ctl xid 2 79              # a GPU breaks
  fake-nvml-ctl lose 2 --off-bus      # ... and answers no more
  fake-nvml-ctl restore 2
  fake-nvml-ctl mig enable 7
  fake-nvml-ctl mig create 7 3g.40gb
  fake-nvml-ctl hang nvmlDeviceGetMemoryInfo_v2 --gpu 3
  fake-nvml-ctl clear
  fake-nvml-ctl upgrade 590.48.01     # a new driver under running programs"
)]
pub struct Args {
    /// The state file.
    #[arg(long, global = true, env = "BERTH_FAKE_NVML", value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Writes a new state file of a machine that exists.
    Init(Init),
    /// Lists the machines and products that `init` and `add` know.
    Profiles,
    /// Lists the NVML functions that `slow`, `fail` and `hang` can break.
    Functions,
    /// Shows the machine as it is now.
    Show {
        /// The whole state file.
        #[arg(long)]
        json: bool,
    },
    /// The driver logs an XID.
    Xid {
        gpu: String,
        /// As in NVIDIA's catalogue: 79 is a GPU fallen off the bus, 94 a contained ECC error.
        code: u64,
        /// The MIG device concerned.
        #[arg(long, value_name = "GI:CI")]
        instance: Option<Instance>,
    },
    /// Counts memory errors and emits the event for them.
    Ecc {
        gpu: String,
        /// Corrected (single-bit) errors instead of uncorrected ones.
        #[arg(long)]
        corrected: bool,
        #[arg(long, default_value = "dram")]
        location: MemoryLocation,
        #[arg(long, default_value_t = 1)]
        count: u64,
    },
    /// Emits any event and changes nothing else.
    Event {
        gpu: String,
        kind: EventKind,
        #[arg(default_value_t = 0)]
        data: u64,
        #[arg(long, value_name = "GI:CI")]
        instance: Option<Instance>,
    },
    /// The GPU answers every call with GPU_IS_LOST, after XID 79.
    Lose {
        gpu: String,
        /// Fallen off the bus: a program that begins anew does not find it either.
        #[arg(long)]
        off_bus: bool,
        /// Without the XID.
        #[arg(long)]
        silent: bool,
    },
    /// The GPU answers again.
    Restore { gpu: String },
    /// Plugs a GPU in. Programs see it when they begin anew or ask the driver to discover.
    Add {
        /// The last GPU's product by default.
        #[arg(long)]
        product: Option<String>,
        #[arg(long)]
        bus_id: Option<BusId>,
        #[arg(long)]
        uuid: Option<String>,
    },
    /// Takes a GPU out. Programs that know it get GPU_IS_LOST and go on counting it.
    Remove { gpu: String },
    /// Removes the kernel module: DRIVER_NOT_LOADED to who begins, UNINITIALIZED to who had begun.
    Unload,
    /// Loads the kernel module again.
    Load {
        /// Another version than before.
        #[arg(long, value_name = "VERSION")]
        driver: Option<String>,
    },
    /// Replaces the driver under running programs: LIB_RM_VERSION_MISMATCH until they load the library anew.
    Upgrade { version: String },
    /// Processes on a GPU.
    #[command(subcommand)]
    Process(Proc),
    /// Partitions of a GPU.
    #[command(subcommand)]
    Mig(Mig),
    /// Sets a field of a GPU by its path in the state file (see `show --json`).
    #[command(after_help = "Examples:
  set 0 temperature_c 91
  set 0 clocks_event_reasons '[\"hw_thermal_slowdown\"]'
  set 0 recovery_action gpu_reset
  set 0 remapped_rows.failed true
  set 0 nvlink.down '[0,1]'
  set 0 events '[]'                   # a GPU without event support")]
    Set {
        gpu: String,
        key: String,
        /// JSON; anything else is a string.
        #[arg(allow_hyphen_values = true)]
        value: String,
    },
    /// Makes a function slow.
    Slow {
        /// Its name, or `*` for all.
        function: String,
        ms: u64,
        /// Only calls about this GPU.
        #[arg(long)]
        gpu: Option<String>,
    },
    /// Makes a function fail.
    Fail {
        /// Its name, or `*` for all.
        function: String,
        /// NVML's return code, such as UNKNOWN, TIMEOUT or NVML_ERROR_GPU_IS_LOST.
        code: ReturnCode,
        /// Only calls about this GPU.
        #[arg(long)]
        gpu: Option<String>,
    },
    /// Makes a function hang until `clear`, or for ten minutes.
    Hang {
        /// Its name, or `*` for all.
        function: String,
        /// Only calls about this GPU.
        #[arg(long)]
        gpu: Option<String>,
    },
    /// Ends what `slow`, `fail` and `hang` began.
    Clear {
        /// Only this function.
        function: Option<String>,
        /// Only for this GPU.
        #[arg(long)]
        gpu: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Init {
    /// The state file, if --file does not name it.
    #[arg(value_name = "STATE")]
    pub(super) file: Option<PathBuf>,
    /// A machine (see `profiles`); `NAMExCOUNT` is the same with another number of GPUs.
    #[arg(long)]
    pub(super) profile: String,
    /// Another number of GPUs than the machine has.
    #[arg(long)]
    pub(super) gpus: Option<usize>,
    /// Partition into MIG devices; give it once for each device, such as `--mig 3g.40gb --mig 3g.40gb`.
    #[arg(long, value_name = "PROFILE", value_delimiter = ',')]
    pub(super) mig: Vec<String>,
    /// Partition only these GPUs.
    #[arg(long, value_name = "INDICES", value_delimiter = ',', requires = "mig")]
    pub(super) mig_gpus: Option<Vec<usize>>,
    /// Driver version.
    #[arg(long, value_name = "VERSION")]
    pub(super) driver: Option<String>,
    /// Tells the UUIDs of one machine from those of its like, such as a node's name.
    #[arg(long, default_value = "berth")]
    pub(super) seed: String,
    /// Replace a state file that exists.
    #[arg(long)]
    pub(super) force: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Proc {
    /// A process begins to use a GPU.
    Add {
        gpu: String,
        pid: u32,
        memory_mib: u64,
        #[arg(long, default_value = "compute")]
        kind: ProcessKind,
        #[arg(long, default_value = "")]
        name: String,
        /// The MIG device that it runs in.
        #[arg(long, value_name = "GI:CI")]
        instance: Option<Instance>,
        /// Percent of the SMs that it keeps busy.
        #[arg(long, default_value_t = 0)]
        sm: u32,
    },
    /// A process ends.
    Remove { gpu: String, pid: u32 },
}

#[derive(Debug, Subcommand)]
pub(super) enum Mig {
    /// Switches MIG mode on.
    Enable { gpu: String },
    /// Switches MIG mode off and destroys the instances.
    Disable { gpu: String },
    /// Creates a GPU instance with a compute instance that takes it whole: one MIG device.
    Create {
        gpu: String,
        /// Such as `1g.10gb`; a wrong one is answered with those that the GPU has.
        profile: String,
        /// First memory slice.
        #[arg(long)]
        start: Option<u32>,
        /// Slices of each compute instance, to share the GPU instance: `--compute 2,1`.
        #[arg(long, value_name = "SLICES", value_delimiter = ',')]
        compute: Vec<u32>,
    },
    /// Destroys a GPU instance.
    Destroy {
        gpu: String,
        /// Id of the GPU instance (see `show`).
        instance: u32,
        /// Only this compute instance of it.
        #[arg(long)]
        compute: Option<u32>,
    },
}

/// A MIG device by the ids of its instances, `7:0`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Instance {
    gpu_instance: u32,
    compute_instance: u32,
}

impl Instance {
    pub(super) fn ids(self) -> (u32, u32) {
        (self.gpu_instance, self.compute_instance)
    }
}

impl FromStr for Instance {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (gpu, compute) = text.split_once(':').unwrap_or((text, "0"));
        let parse = |id: &str| {
            id.parse()
                .map_err(|_| format!("{text:?} is no pair of ids; write it as 7:0"))
        };
        Ok(Self {
            gpu_instance: parse(gpu)?,
            compute_instance: parse(compute)?,
        })
    }
}
