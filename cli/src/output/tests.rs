//! Pages and JSON documents, word for word. A page that changes on purpose changes its file under `testdata`.

use serde_json::Value;

use super::*;
use crate::{
    diff::{Change, ChangeKind},
    testing::{NOW, book, grant, node, uuid},
    view::{Book, DeviceVerdict, Node, Verdict},
};

fn text(report: &impl Report) -> String {
    page(report, false, NOW)
}

fn json(report: &impl Report) -> Value {
    serde_json::to_value(report).unwrap()
}

fn assert_fits(page: &str) {
    for line in page.lines() {
        assert!(
            line.chars().count() <= WIDTH,
            "{} characters: {line}",
            line.chars().count()
        );
    }
}

fn verdict(fits: bool) -> Verdict {
    let device = |index, reason: &str, message: &str| DeviceVerdict {
        device_uuid: uuid(index),
        index,
        fits: reason.is_empty(),
        reason: reason.to_owned(),
        message: message.to_owned(),
    };
    let devices = vec![
        device(0, "DeviceHeld", "default/train-0 holds it"),
        device(3, "DeviceUnhealthy", "XID 79: GPU has fallen off the bus"),
        device(5, "", ""),
        device(7, "", ""),
    ];
    let plan = if fits { vec![grant(7, 1000, 0)] } else { Vec::new() };
    let no = |text: &str| if fits { String::new() } else { text.to_owned() };
    Verdict {
        fits,
        reason: no("InsufficientDevices"),
        message: no("3 of 8 GPUs: 5 DeviceHeld, 1 DeviceUnhealthy"),
        plan,
        devices,
        generation: 42,
    }
}

#[test]
fn the_page_of_a_node() {
    let page = text(&node());
    assert_eq!(page, include_str!("../../testdata/node.txt"));
    assert_fits(&page);
}

#[test]
fn the_page_of_eight_devices_fits_and_says_in_full_what_is_wrong() {
    let page = text(&DeviceList::new(node(), &book()));
    assert_eq!(page, include_str!("../../testdata/devices.txt"));
    assert_fits(&page);
}

#[test]
fn the_page_of_allocations() {
    let page = text(&Allocations {
        book: book(),
        node: node(),
    });
    assert_eq!(page, include_str!("../../testdata/allocations.txt"));
    assert_fits(&page);
}

#[test]
fn the_pages_of_a_verdict() {
    let page = |asked: &str, fits| {
        text(&Explanation {
            asked: asked.to_owned(),
            verdict: verdict(fits),
            node: node(),
        })
    };
    let both = format!("{}\n{}", page("1 GPU", true), page("3 GPU", false));
    assert_eq!(both, include_str!("../../testdata/explain.txt"));
    assert_fits(&both);
}

#[test]
fn a_node_without_gpus_says_where_to_look() {
    let bare = Node {
        devices: Vec::new(),
        ..node()
    };
    let page = text(&DeviceList::new(bare.clone(), &Book::default()));
    assert_eq!(
        page,
        "gpu-box-1 has no GPU that the driver tells of; see `berthctl node`.\n"
    );
    assert_eq!(
        text(&Allocations {
            book: Book::default(),
            node: bare
        }),
        "Nobody holds anything of gpu-box-1.\n"
    );
}

#[test]
fn what_others_wrote_cannot_steer_the_terminal() {
    let mut book = book();
    book.allocations[1].client = "\u{1b}]0;owned\u{7}\u{1b}[2Jalice\r\nroot".to_owned();
    let page = text(&Allocations { book, node: node() });
    assert!(page.chars().all(|c| c == '\n' || !c.is_control()), "{page:?}");
    assert!(page.contains("alice"), "{page}");
}

#[test]
fn colours_are_only_added_where_they_are_wanted() {
    let devices = DeviceList::new(node(), &book());
    assert!(!page(&devices, false, NOW).contains('\u{1b}'));
    let coloured = page(&devices, true, NOW);
    assert!(
        coloured.contains("\u{1b}[31mUnhealthy (Xid 79)\u{1b}[0m"),
        "{coloured:?}"
    );
    assert!(coloured.contains("\u{1b}[32mHealthy\u{1b}[0m"), "{coloured:?}");
}

#[test]
fn the_answers_to_reserve_and_release() {
    let reserved = |existing| ReserveAnswer {
        allocation: book().allocations.remove(2),
        existing,
        generation: 43,
    };
    let uuid = uuid(2);
    assert_eq!(
        text(&reserved(false)),
        format!(
            "nvcf-backend/0-sr-5b5c7a0e-inference-7d9f8c6b5-x2x9z now holds 0.25 GPU: GPU 2 ({uuid}, 19 GiB)\n\
             It lapses in 4m unless the kubelet confirms it\n"
        )
    );
    assert!(text(&reserved(true)).contains(" already holds 0.25 GPU: "));
    let released = |released| ReleaseAnswer {
        released,
        generation: 44,
        holder: "Pod u-1".to_owned(),
    };
    assert_eq!(text(&released(true)), "Released what Pod u-1 held\n");
    assert_eq!(text(&released(false)), "Pod u-1 held nothing; nothing to release\n");
    assert_eq!(
        json(&released(false)),
        serde_json::json!({ "released": false, "generation": 44 })
    );
}

#[test]
fn a_change_is_one_line() {
    let change = Change::new(ChangeKind::Connected, "gpu-box-1: 8 GPUs, 4 holders");
    let line = ChangeLine {
        unix_ms: NOW,
        generation: 42,
        change: &change,
    };
    assert_eq!(
        text(&line),
        "07:08:09Z  Connected           gpu-box-1: 8 GPUs, 4 holders\n"
    );
    assert_eq!(
        serde_json::to_string(&line).unwrap(),
        r#"{"unixMs":1714979289000,"generation":42,"kind":"Connected","message":"gpu-box-1: 8 GPUs, 4 holders"}"#
    );
}

#[test]
fn the_json_documents() {
    let documents = serde_json::json!({
        "node": json(&Node { devices: Vec::new(), drifts: Vec::new(), ..node() }),
        "device": json(&DeviceList::new(node(), &book()))["devices"][5],
        "allocations": json(&Allocations { book: book(), node: node() }),
        "explain": json(&Explanation { asked: "1 GPU".to_owned(), verdict: verdict(true), node: node() }),
    });
    let expected: Value = serde_json::from_str(include_str!("../../testdata/documents.json")).unwrap();
    assert_eq!(documents, expected, "{documents:#}");
}
