//! MIG profiles by product, as `nvidia-smi mig -lgip` and `-lgipp` list them.

use crate::scenario::MigProfile;

/// `NVML_GPU_INSTANCE_PROFILE_…`.
const SLICE_1: u32 = 0;
const SLICE_2: u32 = 1;
const SLICE_3: u32 = 2;
const SLICE_4: u32 = 3;
const SLICE_7: u32 = 4;
const SLICE_1_REV1: u32 = 7;
const SLICE_2_REV1: u32 = 8;
const SLICE_1_REV2: u32 = 9;

const EACH: &[u32] = &[0, 1, 2, 3, 4, 5, 6];

/// SMs, memory in MiB, and the engines in NVML's order: copy, decoder, encoder, JPEG, OFA.
type Share = (u32, u64, [u32; 5]);

/// A row of the table: name, id, NVML's number, compute slices, memory slices, starts, most instances.
type Shape<'a> = (&'a str, u32, u32, u32, u32, &'a [u32], u32);

fn row((name, id, nvml_profile, slices, memory_slices, starts, max_instances): Shape<'_>, share: Share) -> MigProfile {
    let (sms, memory_mib, [copy_engines, decoders, encoders, jpegs, ofas]) = share;
    MigProfile {
        name: name.to_owned(),
        id,
        nvml_profile,
        slices,
        memory_slices,
        starts: starts.to_vec(),
        max_instances,
        sms,
        memory_mib,
        copy_engines,
        decoders,
        encoders,
        jpegs,
        ofas,
    }
}

/// The seven profiles that A100 and its successors have, in the order 1g, 1g+me, 1g with double memory, 2g, 3g, 4g, 7g.
fn seven(names: [&str; 7], shares: [Share; 7]) -> Vec<MigProfile> {
    let [one, media, double, two, three, four, all] = names;
    let shapes: [Shape<'_>; 7] = [
        (one, 19, SLICE_1, 1, 1, EACH, 7),
        (media, 20, SLICE_1_REV1, 1, 1, EACH, 1),
        (double, 15, SLICE_1_REV2, 1, 2, &[0, 2, 4, 6], 4),
        (two, 14, SLICE_2, 2, 2, &[0, 2, 4], 3),
        (three, 9, SLICE_3, 3, 4, &[0, 4], 2),
        (four, 5, SLICE_4, 4, 4, &[0], 1),
        (all, 0, SLICE_7, 7, 8, &[0], 1),
    ];
    shapes
        .into_iter()
        .zip(shares)
        .map(|(shape, share)| row(shape, share))
        .collect()
}

fn a100(names: [&str; 7], memory: [u64; 4]) -> Vec<MigProfile> {
    let [one, two, half, all] = memory;
    let shares = [
        (14, one, [1, 0, 0, 0, 0]),
        (14, one, [1, 1, 0, 1, 1]),
        (14, two, [1, 1, 0, 0, 0]),
        (28, two, [2, 1, 0, 0, 0]),
        (42, half, [3, 2, 0, 0, 0]),
        (56, half, [4, 2, 0, 0, 0]),
        (98, all, [7, 5, 0, 1, 1]),
    ];
    seven(names, shares)
}

pub(super) fn a100_40() -> Vec<MigProfile> {
    let names = [
        "1g.5gb",
        "1g.5gb+me",
        "1g.10gb",
        "2g.10gb",
        "3g.20gb",
        "4g.20gb",
        "7g.40gb",
    ];
    a100(names, [4864, 9984, 20096, 40448])
}

pub(super) fn a100_80() -> Vec<MigProfile> {
    let names = [
        "1g.10gb",
        "1g.10gb+me",
        "1g.20gb",
        "2g.20gb",
        "3g.40gb",
        "4g.40gb",
        "7g.80gb",
    ];
    a100(names, [9728, 19968, 40192, 80640])
}

fn hopper(names: [&str; 7], memory: [u64; 4]) -> Vec<MigProfile> {
    let [one, two, half, all] = memory;
    let shares = [
        (16, one, [1, 1, 0, 1, 0]),
        (16, one, [1, 1, 0, 1, 1]),
        (26, two, [1, 1, 0, 1, 0]),
        (32, two, [2, 2, 0, 2, 0]),
        (60, half, [3, 3, 0, 3, 0]),
        (64, half, [4, 4, 0, 4, 0]),
        (132, all, [8, 7, 0, 7, 1]),
    ];
    seven(names, shares)
}

pub(super) fn h100_80() -> Vec<MigProfile> {
    let names = [
        "1g.10gb",
        "1g.10gb+me",
        "1g.20gb",
        "2g.20gb",
        "3g.40gb",
        "4g.40gb",
        "7g.80gb",
    ];
    hopper(names, [9984, 20096, 40448, 81152])
}

/// The PCIe board has fewer SMs in all: 114.
pub(super) fn h100_pcie_80() -> Vec<MigProfile> {
    let mut profiles = h100_80();
    for (profile, sms) in profiles.iter_mut().zip([14, 14, 22, 28, 50, 56, 114]) {
        profile.sms = sms;
    }
    profiles
}

pub(super) fn h100_94() -> Vec<MigProfile> {
    let names = [
        "1g.12gb",
        "1g.12gb+me",
        "1g.24gb",
        "2g.24gb",
        "3g.47gb",
        "4g.47gb",
        "7g.94gb",
    ];
    hopper(names, [11008, 22144, 47488, 95104])
}

pub(super) fn gh200_96() -> Vec<MigProfile> {
    let names = [
        "1g.12gb",
        "1g.12gb+me",
        "1g.24gb",
        "2g.24gb",
        "3g.48gb",
        "4g.48gb",
        "7g.96gb",
    ];
    hopper(names, [11008, 23040, 47488, 96768])
}

pub(super) fn h200_141() -> Vec<MigProfile> {
    let names = [
        "1g.18gb",
        "1g.18gb+me",
        "1g.35gb",
        "2g.35gb",
        "3g.71gb",
        "4g.71gb",
        "7g.141gb",
    ];
    hopper(names, [16384, 33024, 71168, 143_360])
}

fn blackwell(names: [&str; 7], memory: [u64; 4], sms: [u32; 7]) -> Vec<MigProfile> {
    let [one, two, half, all] = memory;
    let shares = [
        (sms[0], one, [2, 1, 0, 1, 0]),
        (sms[1], one, [2, 1, 0, 1, 1]),
        (sms[2], two, [2, 1, 0, 1, 0]),
        (sms[3], two, [4, 2, 0, 2, 0]),
        (sms[4], half, [6, 3, 0, 3, 0]),
        (sms[5], half, [8, 4, 0, 4, 0]),
        (sms[6], all, [16, 7, 0, 7, 1]),
    ];
    seven(names, shares)
}

pub(super) fn b200_180() -> Vec<MigProfile> {
    let names = [
        "1g.23gb",
        "1g.23gb+me",
        "1g.45gb",
        "2g.45gb",
        "3g.90gb",
        "4g.90gb",
        "7g.180gb",
    ];
    blackwell(names, [22528, 45312, 91136, 182_784], [18, 18, 30, 36, 70, 72, 148])
}

pub(super) fn gb200_189() -> Vec<MigProfile> {
    let names = [
        "1g.23gb",
        "1g.23gb+me",
        "1g.47gb",
        "2g.47gb",
        "3g.95gb",
        "4g.95gb",
        "7g.189gb",
    ];
    blackwell(names, [22528, 46592, 93952, 188_416], [18, 18, 32, 38, 74, 76, 152])
}

pub(super) fn a30_24() -> Vec<MigProfile> {
    vec![
        row(
            ("1g.6gb", 14, SLICE_1, 1, 1, &[0, 1, 2, 3], 4),
            (14, 5952, [1, 0, 0, 0, 0]),
        ),
        row(
            ("1g.6gb+me", 21, SLICE_1_REV1, 1, 1, &[0, 1, 2, 3], 1),
            (14, 5952, [1, 1, 0, 1, 1]),
        ),
        row(("2g.12gb", 5, SLICE_2, 2, 2, &[0, 2], 2), (28, 11968, [2, 2, 0, 0, 0])),
        row(
            ("2g.12gb+me", 6, SLICE_2_REV1, 2, 2, &[0, 2], 1),
            (28, 11968, [2, 2, 0, 1, 1]),
        ),
        row(("4g.24gb", 0, SLICE_4, 4, 4, &[0], 1), (56, 24000, [4, 4, 0, 1, 1])),
    ]
}

pub(super) fn rtx_pro_6000_96() -> Vec<MigProfile> {
    vec![
        row(
            ("1g.24gb", 14, SLICE_1, 1, 1, &[0, 1, 2, 3], 4),
            (46, 23680, [1, 1, 1, 1, 0]),
        ),
        row(
            ("1g.24gb+me", 21, SLICE_1_REV1, 1, 1, &[0, 1, 2, 3], 1),
            (46, 23680, [1, 1, 1, 1, 1]),
        ),
        row(("2g.48gb", 5, SLICE_2, 2, 2, &[0, 2], 2), (94, 47616, [2, 2, 2, 2, 0])),
        row(("4g.96gb", 0, SLICE_4, 4, 4, &[0], 1), (188, 95488, [4, 4, 4, 4, 1])),
    ]
}
