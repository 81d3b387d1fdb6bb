//! What each XID means for placement.
//!
//! Numbers and what they ask for are from NVIDIA's public catalogue
//! (<https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html>: "resolution bucket", column *immediate action*);
//! the words are ours. Where the catalogue asks only to restart the application, the device is not at fault.

/// What an XID means for new work on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XidClass {
    /// A program's doing, or a note of the driver: says nothing about the device.
    Application,
    /// Something to look at: read the device at once, let the reading decide.
    Notice,
    /// The device works, and may be about to fail: used last for a while.
    Suspect,
    /// Nothing new until the device was reset, or the driver says that none is needed.
    Reset,
    /// Nothing new until the machine was rebooted, or the device came back to the bus.
    Reboot,
}

struct Entry {
    code: u32,
    class: XidClass,
    meaning: &'static str,
}

const fn entry(code: u32, class: XidClass, meaning: &'static str) -> Entry {
    Entry { code, class, meaning }
}

use XidClass::{Application, Notice, Reboot, Reset, Suspect};

/// Sorted by code.
const CATALOGUE: &[Entry] = &[
    entry(8, Application, "channel stopped processing"),
    entry(11, Application, "malformed push buffer"),
    entry(13, Application, "graphics or compute engine exception"),
    entry(25, Application, "illegal push buffer"),
    entry(31, Application, "memory page fault of a program"),
    entry(32, Application, "corrupted push buffer"),
    entry(37, Application, "driver firmware error"),
    entry(38, Application, "driver firmware watchdog"),
    entry(39, Application, "copy engine 0 exception"),
    entry(40, Application, "copy engine 1 exception"),
    entry(41, Application, "copy engine 2 exception"),
    entry(43, Application, "a program's channel was reset"),
    entry(44, Application, "engine fault during a context switch"),
    entry(
        45,
        Application,
        "channels were removed after an earlier error or a kill",
    ),
    entry(46, Reset, "the GPU stopped processing"),
    entry(48, Reset, "uncorrectable memory error"),
    entry(54, Suspect, "auxiliary power is not connected"),
    entry(60, Application, "video processor exception"),
    entry(61, Reset, "internal micro-controller stopped at a breakpoint"),
    entry(62, Reset, "internal micro-controller halted"),
    entry(63, Suspect, "a memory row or page is marked for replacement"),
    entry(64, Reset, "a memory row or page could not be replaced"),
    entry(66, Application, "illegal register access by the driver"),
    entry(67, Application, "illegal access by the driver"),
    entry(68, Application, "video decoder 0 exception"),
    entry(69, Application, "graphics or compute class error"),
    entry(70, Application, "copy engine 3 exception"),
    entry(71, Application, "copy engine 4 exception"),
    entry(72, Application, "copy engine 5 exception"),
    // The catalogue sends 74 through a workflow that ends in "none" or "reset" by the bits of the message, which NVML does
    // not deliver. A link that stays down breaks every multi-GPU job, so the device waits until the driver clears it.
    entry(74, Reset, "NVLink error"),
    entry(75, Application, "copy engine 6 exception"),
    entry(76, Application, "copy engine 7 exception"),
    entry(77, Application, "copy engine 8 exception"),
    entry(78, Suspect, "a vGPU could not be started"),
    entry(79, Reboot, "GPU has fallen off the bus"),
    entry(80, Application, "corrupted data sent to the GPU"),
    entry(82, Application, "JPEG engine 0 exception"),
    entry(83, Application, "video decoder 1 exception"),
    entry(84, Application, "video decoder 2 exception"),
    entry(85, Application, "copy engine 9 exception"),
    entry(86, Application, "optical flow engine exception"),
    entry(88, Application, "video decoder 3 exception"),
    entry(89, Application, "video decoder 4 exception"),
    entry(92, Suspect, "high rate of correctable memory errors"),
    entry(93, Suspect, "the configuration memory is worn"),
    entry(94, Suspect, "contained memory error: the program that it hit was ended"),
    entry(95, Reset, "uncontained memory error"),
    entry(96, Application, "video decoder 5 exception"),
    entry(97, Application, "video decoder 6 exception"),
    entry(98, Application, "video decoder 7 exception"),
    entry(99, Application, "JPEG engine 1 exception"),
    entry(100, Application, "JPEG engine 2 exception"),
    entry(101, Application, "JPEG engine 3 exception"),
    entry(102, Application, "JPEG engine 4 exception"),
    entry(103, Application, "JPEG engine 5 exception"),
    entry(104, Application, "JPEG engine 6 exception"),
    entry(105, Application, "JPEG engine 7 exception"),
    entry(106, Application, "test message"),
    entry(107, Application, "test message"),
    // The catalogue asks for a reset, and the driver does one of the channel by itself; programs that spin cause it. What it
    // leaves broken shows as a recovery action.
    entry(109, Application, "context switch took too long"),
    entry(110, Reset, "security fault"),
    entry(119, Reset, "the GPU's system processor did not answer in time"),
    entry(120, Reset, "the GPU's system processor reported an error"),
    entry(121, Suspect, "error on the link between CPU and GPU"),
    entry(126, Application, "copy engine 10 exception"),
    entry(127, Application, "copy engine 11 exception"),
    entry(128, Application, "copy engine 12 exception"),
    entry(129, Application, "copy engine 13 exception"),
    entry(130, Application, "copy engine 14 exception"),
    entry(131, Application, "copy engine 15 exception"),
    entry(132, Application, "copy engine 16 exception"),
    entry(133, Application, "copy engine 17 exception"),
    entry(134, Application, "copy engine 18 exception"),
    entry(135, Application, "copy engine 19 exception"),
    entry(136, Reset, "NVLink training failed"),
    entry(137, Application, "a peer's access over NVLink was refused"),
    entry(139, Application, "optical flow engine 1 exception"),
    entry(140, Reset, "unrecovered memory error"),
    entry(141, Application, "CUDA fast path error"),
    entry(143, Reset, "the GPU could not be initialised"),
    entry(144, Notice, "NVLink unit error"),
    entry(145, Notice, "NVLink unit error"),
    entry(146, Notice, "NVLink unit error"),
    entry(147, Notice, "NVLink unit error"),
    entry(148, Notice, "NVLink unit error"),
    entry(149, Notice, "NVLink unit error"),
    entry(150, Notice, "NVLink unit error"),
    entry(151, Suspect, "a key could not be rotated"),
    entry(152, Application, "address translation error of an accelerator"),
    entry(153, Application, "an accelerator took too long"),
    entry(154, Notice, "the driver changed the recovery action that it asks for"),
    entry(155, Reset, "NVLink error told by software"),
    entry(156, Reset, "a part of the GPU is marked for retirement"),
    entry(157, Suspect, "a part of the GPU could not be retired"),
    entry(158, Reset, "the GPU took fatally long"),
    entry(159, Suspect, "coherent interconnect error"),
    entry(160, Suspect, "a memory channel is marked for retirement"),
    entry(161, Suspect, "a memory channel could not be retired"),
    entry(162, Application, "power smoothing engaged again"),
    entry(163, Suspect, "power smoothing disengaged"),
    entry(164, Suspect, "power smoothing is near the end of its life"),
    entry(165, Suspect, "power smoothing is at the end of its life"),
    entry(166, Reset, "NVLink traffic before encryption was set up"),
    entry(167, Reset, "PCIe took fatally long"),
    entry(168, Suspect, "the GPU works with less memory"),
    entry(169, Reset, "security micro-controller halted"),
    entry(170, Reset, "interrupt in confidential-computing mode"),
    // They come with 48 and say where it was.
    entry(171, Notice, "uncorrectable error in the frame buffer"),
    entry(172, Notice, "uncorrectable error in on-chip memory"),
];

/// The class of an XID. One that the catalogue does not list, or lists as unused, makes a device suspect.
pub fn class(code: u32) -> XidClass {
    find(code).map_or(Suspect, |entry| entry.class)
}

/// `XID 79: GPU has fallen off the bus`.
pub fn describe(code: u32) -> String {
    let meaning = find(code).map_or("not in NVIDIA's catalogue", |entry| entry.meaning);
    format!("XID {code}: {meaning}")
}

fn find(code: u32) -> Option<&'static Entry> {
    let at = CATALOGUE.binary_search_by_key(&code, |entry| entry.code).ok()?;
    CATALOGUE.get(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_is_sorted_so_that_it_can_be_searched() {
        assert!(CATALOGUE.is_sorted_by(|one, two| one.code < two.code));
    }

    #[test]
    fn what_an_application_does_is_not_held_against_the_device() {
        for code in [13, 31, 43, 45, 68, 109] {
            assert_eq!(class(code), Application, "{code}");
        }
    }

    #[test]
    fn what_breaks_a_device_does_not_pass_for_less() {
        for code in [46, 48, 62, 64, 74, 95, 119, 120, 140, 143, 158] {
            assert_eq!(class(code), Reset, "{code}");
        }
        assert_eq!(class(79), Reboot);
        for code in [63, 92, 94, 4_000] {
            assert_eq!(class(code), Suspect, "{code}");
        }
    }

    #[test]
    fn an_xid_is_told_in_words() {
        assert_eq!(describe(79), "XID 79: GPU has fallen off the bus");
        assert_eq!(describe(4_000), "XID 4000: not in NVIDIA's catalogue");
    }
}
