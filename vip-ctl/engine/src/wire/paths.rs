//! What nodes tell each other of the ways between their interfaces, as bytes: a count
//! and the sender's interfaces, a count and what arrives of the receiver's.

use super::{DecodeError, Reader, put_address};
use crate::message::{PATHS_MAX, PathEnd, PathSeen, Paths};

pub(super) fn put(out: &mut Vec<u8>, paths: &Paths) {
    let ends = &paths.ends[..paths.ends.len().min(PATHS_MAX)];
    put_count(out, ends.len());
    for PathEnd { mac, address } in ends {
        out.extend(mac);
        put_address(out, *address);
    }
    let seen = &paths.seen[..paths.seen.len().min(PATHS_MAX)];
    put_count(out, seen.len());
    for PathSeen { address, arrives } in seen {
        put_address(out, *address);
        out.push(u8::from(*arrives));
    }
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    out.push(u8::try_from(count).unwrap_or(u8::MAX));
}

pub(super) fn read(reader: &mut Reader<'_>) -> Result<Paths, DecodeError> {
    let count = read_count(reader)?;
    let mut ends = Vec::with_capacity(count);
    for _ in 0..count {
        ends.push(PathEnd { mac: reader.take()?, address: reader.address()? });
    }
    let count = read_count(reader)?;
    let mut seen = Vec::with_capacity(count);
    for _ in 0..count {
        seen.push(PathSeen { address: reader.address()?, arrives: reader.flag()? });
    }
    Ok(Paths { ends, seen })
}

fn read_count(reader: &mut Reader<'_>) -> Result<usize, DecodeError> {
    let byte = reader.u8()?;
    let count = usize::from(byte);
    if count > PATHS_MAX {
        Err(DecodeError::Unknown { what: "count of interfaces", byte })
    } else {
        Ok(count)
    }
}
