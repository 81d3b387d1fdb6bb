//! The openb format (Alibaba cluster-trace-gpu-v2023): nodes and pods as comma-separated text with a header line.
//!
//! Columns are found by name, so that files with fewer of them (no `gpu_spec`, no times) are read too. What is wrong is
//! told with file, line and column.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    str::FromStr,
};

use berth_placement::{
    ComputeMode, CpuMilli, DeviceState, GpuModel, GpuShape, Health, MemoryBytes, MilliGpu, NodeName, NodeState, Room,
    Shape,
};
use thiserror::Error;

/// The trace does not say how much memory its GPUs have. Shares are by thousandths, so any size gives the same result.
const GPU_MEMORY: MemoryBytes = MemoryBytes::from_gib(32);

/// What is wrong with a trace file.
#[derive(Debug, Error)]
pub enum TraceError {
    #[error("cannot read {}", file.display())]
    Read { file: PathBuf, source: std::io::Error },
    #[error("{}: it has no header line", file.display())]
    Empty { file: PathBuf },
    #[error("{}:1: the header has no column {name:?}", file.display())]
    NoColumn { file: PathBuf, name: &'static str },
    #[error("{}:{line}: {found} columns, where the header names {expected}", file.display())]
    Columns {
        file: PathBuf,
        line: usize,
        found: usize,
        expected: usize,
    },
    #[error("{}:{line}:{column}: {name} {text:?} {rule}", file.display())]
    Value {
        file: PathBuf,
        line: usize,
        /// The character at which the value starts, from 1.
        column: usize,
        name: &'static str,
        text: String,
        rule: String,
    },
    #[error("{}: it holds no {what}", file.display())]
    Nothing { file: PathBuf, what: &'static str },
}

impl TraceError {
    /// Stable CamelCase name.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Read { .. } => "TraceUnreadable",
            Self::Empty { .. } | Self::Nothing { .. } => "TraceEmpty",
            Self::NoColumn { .. } | Self::Columns { .. } => "TraceColumns",
            Self::Value { .. } => "TraceValue",
        }
    }
}

/// One pod of a trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Pod {
    pub name: String,
    pub shape: Shape,
    /// Thousandths of GPUs in all.
    pub milli: u64,
    /// Seconds from creation to deletion, where the trace tells it.
    pub lifetime: Option<f64>,
}

/// Reads a node list, in the order of the file.
pub fn read_nodes(file: &Path) -> Result<Vec<NodeState>, TraceError> {
    let text = read(file)?;
    let table = Table::new(file, &text)?;
    let columns = (
        table.column("sn")?,
        table.column("cpu_milli")?,
        table.column("memory_mib")?,
        table.column("gpu")?,
        table.column("model")?,
    );
    let mut nodes = Vec::new();
    let mut names = HashSet::new();
    for row in table.rows() {
        let row = row?;
        let name: NodeName = row.parse(columns.0)?;
        if !names.insert(name.clone()) {
            return Err(row.wrong(columns.0, "is listed before"));
        }
        let count: u32 = row.parse(columns.3)?;
        let devices = if count == 0 {
            Vec::new()
        } else {
            let model: GpuModel = row.parse(columns.4)?;
            (0..count)
                .map(|index| device(&name, index, &model))
                .collect::<Result<_, _>>()
                .map_err(|error| row.wrong(columns.0, &error))?
        };
        let cpu = Some(CpuMilli(row.parse(columns.1)?));
        nodes.push(NodeState {
            cpu_free: cpu,
            cpu_total: cpu,
            memory_free: Some(MemoryBytes::from_mib(row.parse(columns.2)?)),
            ..NodeState::of_devices(name, 1, devices)
        });
    }
    if nodes.is_empty() {
        return Err(TraceError::Nothing {
            file: file.to_owned(),
            what: "nodes",
        });
    }
    Ok(nodes)
}

/// A free GPU of a node.
pub fn device(node: &NodeName, index: u32, model: &GpuModel) -> Result<DeviceState, String> {
    Ok(DeviceState {
        uuid: format!("GPU-{node}-{index}")
            .parse()
            .map_err(|error| format!("cannot name its GPUs: {error}"))?,
        index,
        model: model.clone(),
        memory: GPU_MEMORY,
        compute_mode: ComputeMode::Default,
        numa_node: None,
        nvlink_domain: None,
        health: Health::Healthy,
        schedulable: true,
        out_of_band: false,
        mig: None,
        free: Room::whole(GPU_MEMORY),
    })
}

/// Reads a pod list, sorted by name.
pub fn read_pods(file: &Path) -> Result<Vec<Pod>, TraceError> {
    let text = read(file)?;
    let table = Table::new(file, &text)?;
    let name = table.column("name")?;
    let (cpu, memory) = (table.column("cpu_milli")?, table.column("memory_mib")?);
    let (count, milli) = (table.column("num_gpu")?, table.column("gpu_milli")?);
    let spec = table.optional("gpu_spec");
    let times = table.optional("creation_time").zip(table.optional("deletion_time"));
    let mut pods = Vec::new();
    for row in table.rows() {
        let row = row?;
        let devices: u32 = row.parse(count)?;
        let share: u32 = row.parse(milli)?;
        let gpu = match devices {
            0 => GpuShape::None,
            _ => GpuShape::share(Some(MilliGpu::new(share)), None, devices)
                .map_err(|error| row.wrong(milli, &error.to_string()))?,
        };
        let models = match spec.map(|spec| row.text(spec)) {
            Some(text) if !text.is_empty() && devices > 0 => text
                .split('|')
                .map(GpuModel::from_str)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| row.wrong(spec.unwrap_or(milli), &error.to_string()))?,
            _ => Vec::new(),
        };
        let lifetime = match times {
            Some((creation, deletion)) if !row.text(deletion).is_empty() => {
                let (created, deleted): (f64, f64) = (row.parse(creation)?, row.parse(deletion)?);
                if deleted < created {
                    return Err(row.wrong(deletion, "is before the creation"));
                }
                Some(deleted - created)
            }
            _ => None,
        };
        pods.push(Pod {
            name: row.text(name).to_owned(),
            shape: Shape {
                cpu: CpuMilli(row.parse(cpu)?),
                memory: MemoryBytes::from_mib(row.parse(memory)?),
                ..Shape::gpu(gpu).with_models(models)
            },
            milli: u64::from(devices) * u64::from(share.min(1000)),
            lifetime,
        });
    }
    if pods.is_empty() {
        return Err(TraceError::Nothing {
            file: file.to_owned(),
            what: "pods",
        });
    }
    pods.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(pods)
}

fn read(file: &Path) -> Result<String, TraceError> {
    fs::read_to_string(file).map_err(|source| TraceError::Read {
        file: file.to_owned(),
        source,
    })
}

/// Text in lines and columns. The format knows no quotes.
struct Table<'a> {
    file: &'a Path,
    header: Vec<&'a str>,
    lines: Vec<(usize, &'a str)>,
}

#[derive(Debug, Clone, Copy)]
struct Column {
    at: usize,
    name: &'static str,
}

struct Row<'a> {
    file: &'a Path,
    line: usize,
    cells: Vec<&'a str>,
}

impl<'a> Table<'a> {
    fn new(file: &'a Path, text: &'a str) -> Result<Self, TraceError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
        let (_, header) = lines
            .next()
            .ok_or_else(|| TraceError::Empty { file: file.to_owned() })?;
        Ok(Self {
            file,
            header: header.split(',').map(str::trim).collect(),
            lines: lines.collect(),
        })
    }

    fn optional(&self, name: &'static str) -> Option<Column> {
        let at = self.header.iter().position(|column| *column == name)?;
        Some(Column { at, name })
    }

    fn column(&self, name: &'static str) -> Result<Column, TraceError> {
        self.optional(name).ok_or_else(|| TraceError::NoColumn {
            file: self.file.to_owned(),
            name,
        })
    }

    fn rows(&self) -> impl Iterator<Item = Result<Row<'a>, TraceError>> + '_ {
        self.lines.iter().map(|&(line, text)| {
            let cells: Vec<&str> = text.split(',').collect();
            if cells.len() == self.header.len() {
                Ok(Row {
                    file: self.file,
                    line,
                    cells,
                })
            } else {
                Err(TraceError::Columns {
                    file: self.file.to_owned(),
                    line,
                    found: cells.len(),
                    expected: self.header.len(),
                })
            }
        })
    }
}

impl Row<'_> {
    fn text(&self, column: Column) -> &str {
        self.cells[column.at].trim()
    }

    fn parse<T: FromStr<Err: std::fmt::Display>>(&self, column: Column) -> Result<T, TraceError> {
        let parsed = self.text(column).parse();
        parsed.map_err(|error: T::Err| self.wrong(column, &format!("cannot be read: {error}")))
    }

    fn wrong(&self, column: Column, rule: &str) -> TraceError {
        let before: usize = self.cells[..column.at]
            .iter()
            .map(|cell| cell.chars().count() + 1)
            .sum();
        TraceError::Value {
            file: self.file.to_owned(),
            line: self.line,
            column: before + 1,
            name: column.name,
            text: self.text(column).chars().take(80).collect(),
            rule: rule.to_owned(),
        }
    }
}
