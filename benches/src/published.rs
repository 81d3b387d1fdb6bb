//! Allocated GPUs that the authors of FGD published, to compare with.
//!
//! From `analysis_allo_discrete.csv` of the simulator's repository (hkust-adsl/kubernetes-scheduler-simulator): means of ten
//! seeds on 1213 nodes, in per cent of the cluster's GPUs, equally good nodes by name.

/// One trace, by the name of its pod list without `openb_pod_list_`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Published {
    pub trace: &'static str,
    /// At 130 % arrivals: Random, DotProd, Clustering, Packing, BestFit, FGD.
    pub at_130: [f64; 6],
    /// FGD at 85, 90, 95, 100 and 110 % arrivals; empty where it was not at hand.
    pub fgd: &'static [f64],
    /// BestFit at the same; empty where it was not at hand.
    pub best_fit: &'static [f64],
}

pub const POLICIES: [&str; 6] = ["Random", "DotProd", "Clustering", "Packing", "BestFit", "FGD"];
/// Arrivals, in per cent, of [`Published::fgd`].
pub const PARTIAL: [u32; 5] = [85, 90, 95, 100, 110];

const fn published(trace: &'static str, at_130: [f64; 6], fgd: &'static [f64], best_fit: &'static [f64]) -> Published {
    Published {
        trace,
        at_130,
        fgd,
        best_fit,
    }
}

/// All 17 traces.
pub const TRACES: [Published; 17] = [
    published(
        "default",
        [87.47, 90.85, 91.88, 92.00, 93.08, 95.39],
        &[85.02, 89.98, 94.91, 95.23, 95.30],
        &[85.02, 89.99, 92.82, 92.86, 92.94],
    ),
    published(
        "cpu050",
        [91.24, 93.27, 93.79, 93.72, 93.79, 95.21],
        &[85.00, 90.01, 94.81, 95.00, 95.08],
        &[],
    ),
    published(
        "cpu100",
        [89.11, 91.95, 92.64, 92.72, 93.44, 95.35],
        &[85.00, 90.00, 94.91, 95.21, 95.27],
        &[],
    ),
    published(
        "cpu200",
        [83.77, 87.70, 89.92, 90.22, 92.40, 95.05],
        &[85.01, 89.99, 94.69, 94.82, 94.91],
        &[],
    ),
    published(
        "cpu250",
        [80.42, 83.81, 87.99, 88.28, 91.45, 93.41],
        &[84.98, 89.98, 93.14, 93.20, 93.28],
        &[84.98, 89.99, 91.16, 91.21, 91.30],
    ),
    published(
        "gpushare40",
        [86.00, 89.56, 90.02, 90.03, 91.69, 94.15],
        &[84.99, 89.99, 93.92, 93.96, 94.03],
        &[],
    ),
    published(
        "gpushare60",
        [83.65, 87.11, 87.20, 87.45, 89.36, 91.40],
        &[84.99, 90.00, 91.21, 91.25, 91.31],
        &[84.99, 88.95, 89.00, 89.06, 89.15],
    ),
    published(
        "gpushare80",
        [81.22, 84.49, 84.85, 85.00, 87.01, 89.30],
        &[85.01, 88.97, 89.03, 89.08, 89.16],
        &[],
    ),
    published(
        "gpushare100",
        [79.44, 82.42, 82.65, 82.57, 85.01, 86.90],
        &[85.00, 86.53, 86.59, 86.64, 86.72],
        &[],
    ),
    published(
        "gpuspec10",
        [87.43, 90.39, 92.18, 92.46, 93.30, 94.95],
        &[81.24, 85.83, 90.38, 94.66, 94.84],
        &[80.38, 84.98, 89.58, 93.10, 93.17],
    ),
    published(
        "gpuspec20",
        [87.24, 89.97, 92.25, 92.94, 93.30, 94.84],
        &[81.50, 86.20, 90.83, 94.66, 94.73],
        &[75.78, 80.05, 84.24, 88.46, 93.16],
    ),
    published(
        "gpuspec25",
        [86.94, 89.63, 92.08, 92.98, 93.23, 94.74],
        &[80.61, 85.20, 89.76, 93.91, 94.62],
        &[],
    ),
    published(
        "gpuspec33",
        [86.46, 89.14, 92.12, 93.22, 93.09, 94.55],
        &[76.97, 80.62, 84.25, 87.84, 94.43],
        &[69.37, 73.10, 76.80, 80.39, 87.70],
    ),
    published(
        "multigpu20",
        [88.69, 92.06, 93.56, 93.71, 93.93, 95.65],
        &[84.98, 90.01, 94.94, 95.53, 95.58],
        &[84.98, 90.01, 93.70, 93.73, 93.81],
    ),
    published(
        "multigpu30",
        [89.27, 93.28, 94.72, 94.87, 94.72, 96.46],
        &[84.98, 90.01, 95.00, 96.36, 96.39],
        &[],
    ),
    published(
        "multigpu40",
        [90.09, 94.19, 95.50, 95.74, 95.23, 96.99],
        &[85.00, 89.96, 94.95, 96.91, 96.93],
        &[],
    ),
    published(
        "multigpu50",
        [90.27, 94.85, 95.81, 96.18, 95.74, 97.18],
        &[84.99, 89.93, 94.82, 97.09, 97.12],
        &[84.99, 89.97, 94.99, 95.62, 95.66],
    ),
];

/// What was published of the trace that a pod list holds, told by the file's name.
pub fn of(pods: &std::path::Path) -> Option<&'static Published> {
    let stem = pods.file_stem()?.to_str()?;
    let trace = stem.strip_prefix("openb_pod_list_")?;
    TRACES.iter().find(|published| published.trace == trace)
}

impl Published {
    /// FGD at each arrival that is at hand, 130 % last.
    pub fn fgd_curve(&self) -> Vec<(u32, f64)> {
        let partial = PARTIAL.iter().copied().zip(self.fgd.iter().copied());
        partial.chain([(130, self.at_130[5])]).collect()
    }

    /// BestFit at each arrival that is at hand, 130 % last.
    pub fn best_fit_curve(&self) -> Vec<(u32, f64)> {
        let partial = PARTIAL.iter().copied().zip(self.best_fit.iter().copied());
        partial.chain([(130, self.at_130[4])]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_found_by_its_file_name() {
        let default = of("somewhere/openb_pod_list_default.csv".as_ref()).unwrap();
        assert_eq!(default.fgd_curve().last(), Some(&(130, 95.39)));
        assert!(of("other.csv".as_ref()).is_none());
    }
}
