//! The gate at IP level before Linux 6.4: a table of nftables, whose rules ask programs
//! over the same maps (`xt_bpf`), at the same hooks, before all other chains there. The
//! kernel drops by the lease itself; the table only says where it asks.
//!
//! A rule keeps its program. That is pinned besides, so that a later process knows which
//! one belongs to the maps: a rule's comment has its number. What anybody does to the table
//! counts as the gate being gone: it is flushed, or asleep, or another rule comes first.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use aya::Ebpf;
use vip_common::layout::SkbOffsets;

use super::{
    super::{
        DataPlaneError,
        bpffs::{netfilter_pins as pins, replace_pin, unpin},
        nfnetlink::{self, Kind, Message, attribute, nested, number, text, value},
        syscalls::{self, NetfilterHook, ProgramType},
    },
    LocalIn, PARTS, Part, kernel_name,
    program::{self, Refused},
};
use crate::mutant::{self, Mutant};

/// The table's name, and where the maps are that it is about. Others have a number behind
/// that name: each data plane of a host has a table of its own.
const TABLE: &str = "vip_gate";
const USUAL_DIR: &str = "/sys/fs/bpf/vip";
/// Before every other chain of the hook, as the netfilter programs.
const PRIORITY: i32 = i32::MIN + 1;
/// What a rule's comment begins with; the program's number follows.
const COMMENT: &str = "vip drops packets to a VIP without a lease: BPF program ";

/// `NFTA_TABLE_NAME` and `NFTA_TABLE_FLAGS`, of linux/netfilter/nf_tables.h, as all that
/// begin with NFTA.
const TABLE_NAME: u16 = 1;
const TABLE_FLAGS: u16 = 2;
/// `NFTA_CHAIN_TABLE`, `NFTA_CHAIN_NAME`, `NFTA_CHAIN_HOOK` and `NFTA_CHAIN_TYPE`.
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_TYPE: u16 = 7;
/// `NFTA_HOOK_HOOKNUM` and `NFTA_HOOK_PRIORITY`.
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
/// `NFTA_RULE_TABLE`, `NFTA_RULE_CHAIN`, `NFTA_RULE_EXPRESSIONS` and `NFTA_RULE_USERDATA`.
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_USERDATA: u16 = 7;
/// `NFTA_LIST_ELEM`, `NFTA_EXPR_NAME` and `NFTA_EXPR_DATA`.
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
/// `NFTA_MATCH_NAME`, `NFTA_MATCH_REV` and `NFTA_MATCH_INFO`.
const MATCH_NAME: u16 = 1;
const MATCH_REVISION: u16 = 2;
const MATCH_INFO: u16 = 3;
/// `NFTA_IMMEDIATE_DREG`, `NFTA_IMMEDIATE_DATA`, `NFTA_DATA_VERDICT` and `NFTA_VERDICT_CODE`.
const IMMEDIATE_REGISTER: u16 = 1;
const IMMEDIATE_DATA: u16 = 2;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
/// `NFT_REG_VERDICT`, and `NF_DROP` of linux/netfilter.h.
const VERDICT_REGISTER: u32 = 0;
const NF_DROP: u32 = 0;
/// The first attribute of a rule's user data, as nft(8) writes and shows it.
const UDATA_COMMENT: u8 = 0;

/// `struct xt_bpf_info_v1`, of linux/netfilter/xt_bpf.h: its length, and the mode in which
/// it names a program by a descriptor of whoever makes the rule.
const XT_BPF_BYTES: usize = 528;
const XT_BPF_MODE_FD_ELF: u16 = 2;

/// The part's program in the kernel, or why this kernel can't have it.
fn loaded(ebpf: &Ebpf, part: &Part) -> Result<OwnedFd, Refused> {
    let kernel_name = kernel_name(part, part.table_program, program::in_programs());
    program::loaded(ebpf, ProgramType::SocketFilter, part.table_program, &kernel_name)
}

/// Puts a part into the table, or replaces the one that an earlier process put there.
pub(super) fn attach(part: &Part, ebpf: &Ebpf, dir: &Path) -> Result<LocalIn, DataPlaneError> {
    let program = match loaded(ebpf, part) {
        Ok(program) => program,
        Err(refused) => return refused.outcome(),
    };
    if let Some(running) = pinned(part, dir)?
        && program::is_same(running.as_fd(), program.as_fd())
        && is_asked(part, dir, running.as_fd())?
    {
        return Ok(LocalIn::Attached);
    }
    let putting = putting(part, dir, program.as_fd());
    let put = putting.and_then(|messages| match nfnetlink::change(&messages) {
        // The chain is at another place than this version's.
        Err(e) if e.raw_os_error() == Some(libc::EEXIST) => nfnetlink::change(&anew(dir, messages)),
        done => done,
    });
    match put {
        Ok(()) => {}
        Err(e) if is_lacking(&e) => return Ok(LocalIn::Unavailable(lacking_text(&e))),
        Err(e) => return Err(DataPlaneError::io("put the gate at IP level into nftables", e)),
    }
    replace_pin(&pins(dir, part.table_program), program.as_fd())?;
    Ok(LocalIn::Attached)
}

/// Would the kernel take the part? Or why not.
pub(super) fn possible(part: &Part, ebpf: &Ebpf, dir: &Path) -> Result<(), String> {
    let program = loaded(ebpf, part).map_err(Refused::why)?;
    let tried = putting(part, dir, program.as_fd()).and_then(|messages| nfnetlink::rehearse(&messages));
    tried.map_err(|e| lacking_text(&e))
}

/// Is it pinned, does the table of this namespace ask it, and does it look at what it can
/// now?
pub(super) fn is_attached(part: &Part, dir: &Path, offsets: SkbOffsets) -> Result<bool, DataPlaneError> {
    let Some(program) = pinned(part, dir)? else { return Ok(false) };
    let is_current = program::is_named(program.as_fd(), &kernel_name(part, part.table_program, offsets));
    Ok(is_current && is_asked(part, dir, program.as_fd())?)
}

/// Is a program of the table pinned?
pub(super) fn is_pinned(dir: &Path) -> bool {
    PARTS.iter().flat_map(|part| pins(dir, part.table_program)).any(|pin| pin.exists())
}

/// Removes the table, and then its programs. Without any the table is what an interrupted
/// attempt left, or somebody else's, who may keep it.
pub(super) fn detach(dir: &Path) -> Result<(), DataPlaneError> {
    let name = text(TABLE_NAME, &table_name(dir));
    let there = nfnetlink::ask(&Message { kind: Kind::GetTable, attributes: name.clone() });
    if there.is_ok_and(|answers| !answers.is_empty()) {
        match nfnetlink::change(&[Message { kind: Kind::DeleteTable, attributes: name }]) {
            Err(e) if e.kind() != io::ErrorKind::NotFound && is_pinned(dir) => {
                return Err(DataPlaneError::io("remove the gate at IP level from nftables", e));
            }
            Ok(()) | Err(_) => {}
        }
    }
    PARTS.iter().flat_map(|part| pins(dir, part.table_program)).try_for_each(|pin| unpin(&pin))
}

/// The table's name, for people too.
pub(super) fn table_name(dir: &Path) -> String {
    if dir == Path::new(USUAL_DIR) {
        return TABLE.to_owned();
    }
    let dir: PathBuf = dir.components().collect();
    let hash = blake3::hash(dir.as_os_str().as_encoded_bytes()).to_hex();
    format!("{TABLE}_{}", hash.get(..8).unwrap_or_default())
}

fn pinned(part: &Part, dir: &Path) -> Result<Option<OwnedFd>, DataPlaneError> {
    let [pin, _] = pins(dir, part.table_program);
    match syscalls::pinned(&pin) {
        Ok(program) => Ok(Some(program)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(DataPlaneError::io(format!("read {}", pin.display()), e)),
    }
}

/// Does the table of this namespace ask this program before anything else?
fn is_asked(part: &Part, dir: &Path, program: BorrowedFd<'_>) -> Result<bool, DataPlaneError> {
    let name = table_name(dir);
    let look = || -> io::Result<bool> {
        let id = syscalls::program_id(program)?;
        let table = Message { kind: Kind::GetTable, attributes: text(TABLE_NAME, &name) };
        let tables = nfnetlink::ask(&table)?;
        let attributes = [text(RULE_TABLE, &name), text(RULE_CHAIN, part.chain)].concat();
        let rules = nfnetlink::ask(&Message { kind: Kind::GetRule, attributes })?;
        Ok(tables.first().is_some_and(|table| asks_first(table, &rules, id)))
    };
    match look() {
        Err(e) if e.kind() == io::ErrorKind::NotFound || is_lacking(&e) => Ok(false),
        Err(e) => Err(DataPlaneError::io("look for the gate at IP level in nftables", e)),
        Ok(is) => Ok(is),
    }
}

/// Is this table awake, and is the first of these rules the one that asks the program with
/// this number? Behind a rule that accepts, no other is asked.
fn asks_first(table: &[u8], rules: &[Vec<u8>], id: u32) -> bool {
    let flags = value(table, TABLE_FLAGS);
    let is_awake = flags.is_none_or(|flags| flags.iter().all(|byte| *byte == 0));
    let is_ours = |rule: &Vec<u8>| value(rule, RULE_USERDATA).is_some_and(|data| data == comment(id));
    if mutant::is(Mutant::AnyRuleGuards) {
        return rules.iter().any(is_ours);
    }
    is_awake && rules.first().is_some_and(is_ours)
}

/// What puts this program into the table, instead of whatever is there: at no moment is a
/// packet asked of neither.
fn putting(part: &Part, dir: &Path, program: BorrowedFd<'_>) -> io::Result<Vec<Message>> {
    let name = table_name(dir);
    let hook = |hook: NetfilterHook| hook as u32;
    let table = [text(TABLE_NAME, &name), number(TABLE_FLAGS, 0)];
    let chain = [
        text(CHAIN_TABLE, &name),
        text(CHAIN_NAME, part.chain),
        nested(
            CHAIN_HOOK,
            &[number(HOOK_NUMBER, hook(part.hook)), number(HOOK_PRIORITY, PRIORITY.cast_unsigned())],
        ),
        text(CHAIN_TYPE, "filter"),
    ];
    let place = [text(RULE_TABLE, &name), text(RULE_CHAIN, part.chain)];
    let rule = [
        place.concat(),
        nested(RULE_EXPRESSIONS, &[asking(program), dropping()]),
        attribute(RULE_USERDATA, &comment(syscalls::program_id(program)?)),
    ];
    let message = |kind, attributes: &[Vec<u8>]| Message { kind, attributes: attributes.concat() };
    Ok(vec![
        message(Kind::NewTable, &table),
        message(Kind::NewChain, &chain),
        message(Kind::DeleteRules, &place),
        message(Kind::NewRule, &rule),
    ])
}

/// The same, after the whole table is gone; the other part has to be put there again.
fn anew(dir: &Path, putting: Vec<Message>) -> Vec<Message> {
    let attributes = text(TABLE_NAME, &table_name(dir));
    let of = |kind| Message { kind, attributes: attributes.clone() };
    // What is not there can't be deleted.
    [vec![of(Kind::NewTable), of(Kind::DeleteTable)], putting].concat()
}

fn expression(name: &str, data: &[Vec<u8>]) -> Vec<u8> {
    nested(LIST_ELEMENT, &[text(EXPRESSION_NAME, name), nested(EXPRESSION_DATA, data)])
}

/// Goes on with the rule only if the program returns another number than 0.
fn asking(program: BorrowedFd<'_>) -> Vec<u8> {
    let mut info = [0; XT_BPF_BYTES];
    info[..2].copy_from_slice(&XT_BPF_MODE_FD_ELF.to_ne_bytes());
    info[4..8].copy_from_slice(&program.as_raw_fd().to_ne_bytes());
    expression("match", &[text(MATCH_NAME, "bpf"), number(MATCH_REVISION, 1), attribute(MATCH_INFO, &info)])
}

fn dropping() -> Vec<u8> {
    let verdict = nested(DATA_VERDICT, &[number(VERDICT_CODE, NF_DROP)]);
    expression(
        "immediate",
        &[number(IMMEDIATE_REGISTER, VERDICT_REGISTER), nested(IMMEDIATE_DATA, &[verdict])],
    )
}

/// A rule's comment, as nft(8) keeps it.
fn comment(id: u32) -> Vec<u8> {
    let text = format!("{COMMENT}{id}\0");
    let mut bytes = vec![UDATA_COMMENT, u8::try_from(text.len()).unwrap_or(u8::MAX)];
    bytes.extend(text.bytes());
    bytes
}

/// Does the kernel say by this that it has no such thing, or lets nobody have it here?
fn is_lacking(error: &io::Error) -> bool {
    let lacking = [
        libc::ENOENT,
        libc::EOPNOTSUPP,
        libc::EPROTONOSUPPORT,
        libc::EAFNOSUPPORT,
        libc::EINVAL,
        libc::EPERM,
    ];
    error.raw_os_error().is_some_and(|code| lacking.contains(&code))
}

fn lacking_text(error: &io::Error) -> String {
    format!("nor does nftables take a rule that asks one (nft_compat, xt_bpf: {error})")
}

#[cfg(test)]
mod tests {
    use super::*;

    const AWAKE: u32 = 0;
    const DORMANT: u32 = 1;

    fn table(flags: u32) -> Vec<u8> {
        [vec![2, 0, 0, 0], text(TABLE_NAME, TABLE), number(TABLE_FLAGS, flags)].concat()
    }

    fn rule(userdata: Option<Vec<u8>>) -> Vec<u8> {
        let userdata = userdata.map(|data| attribute(RULE_USERDATA, &data)).unwrap_or_default();
        [vec![2, 0, 0, 0], text(RULE_TABLE, TABLE), text(RULE_CHAIN, "input"), userdata].concat()
    }

    #[test]
    fn the_gate_is_there_if_its_rule_comes_first_in_a_table_that_is_awake() {
        let (ours, theirs) = (|| rule(Some(comment(7))), || rule(None));
        assert!(asks_first(&table(AWAKE), &[ours()], 7));
        assert!(asks_first(&table(AWAKE), &[ours(), theirs()], 7));
        assert!(!asks_first(&table(AWAKE), &[theirs(), ours()], 7), "behind another rule");
        assert!(!asks_first(&table(DORMANT), &[ours()], 7), "asleep");
        assert!(!asks_first(&table(AWAKE), &[], 7), "flushed");
        assert!(!asks_first(&table(AWAKE), &[rule(Some(comment(77)))], 7), "another program's");
    }

    #[test]
    fn each_data_plane_has_a_table_of_its_own() {
        let name = |dir: &str| table_name(Path::new(dir));
        assert_eq!(name(USUAL_DIR), TABLE);
        assert_eq!(name("/sys/fs/bpf/vip/"), TABLE);
        assert_eq!(name("/sys/fs/bpf/other/"), name("/sys/fs/bpf/other"));
        assert_ne!(name("/sys/fs/bpf/other"), name("/sys/fs/bpf/another"));
        // What nft(8) takes for a name, and the kernel has room for.
        let long = name(&format!("/sys/fs/bpf/{}", "a/".repeat(400)));
        assert!(long.len() < 32 && long.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{long}");
    }

    #[test]
    fn a_comment_is_one_that_nft_shows() {
        // nft(8) takes 128 bytes, its end among them.
        assert!(comment(u32::MAX).len() <= 2 + 128);
        assert_eq!(comment(7).last(), Some(&0));
        assert_eq!(usize::from(comment(7)[1]) + 2, comment(7).len());
    }
}
