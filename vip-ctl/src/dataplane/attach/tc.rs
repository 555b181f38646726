//! tc, on the way in and on the way out: a tcx link, which is pinned, or on kernels
//! before 6.6 a filter on the clsact qdisc.
//!
//! Our program is the first on its hook: one that came before could accept a frame
//! and end the chain. The kernel asks tcx programs first, then filters.

use std::path::PathBuf;

use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramError, ProgramInfo, SchedClassifier, TcAttachType,
        links::{FdLink, Link as _, LinkError},
        tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact},
    },
};

use super::{GONE, Gate, pin_link, reusable, runs};
use crate::dataplane::{
    DataPlaneError,
    bpffs::unpin,
    error::errno_of,
    filters::{self, Filter},
    load::program,
};

/// The first of the handles that our filters on a clsact qdisc have ("vi" in ASCII).
const CLSACT_HANDLE: u16 = 0x7669;

/// A hook of an interface, and the program that belongs there.
pub(super) struct Hook<'a> {
    /// The interface.
    pub(super) ifindex: u32,
    /// Its name.
    pub(super) iface: &'a str,
    /// In or out.
    pub(super) direction: TcAttachType,
    /// The program.
    pub(super) program: &'static str,
    /// All programs that can be in its place, it among them.
    pub(super) family: &'static [&'static str],
    /// Where its tcx link is pinned.
    pub(super) pin: PathBuf,
    /// Where the program of a clsact filter is pinned, so that the next process finds it.
    pub(super) filter_pin: Option<PathBuf>,
}

impl Hook<'_> {
    /// Attaches the program, or replaces what an earlier process attached.
    pub(super) fn attach(&self, ebpf: &mut Ebpf, gate: Gate) -> Result<Gate, DataPlaneError> {
        let tc: &mut SchedClassifier = program(ebpf, self.program)?;
        if self.replace(tc)? {
            return Ok(Gate::Tcx);
        }
        if gate != Gate::Clsact {
            let tcx = TcAttachOptions::TcxOrder(LinkOrder::first());
            match tc.attach_with_options(self.iface, self.direction, tcx) {
                Ok(id) => {
                    let link = tc.take_link(id).map_err(|e| self.refused(&e))?;
                    let link = FdLink::try_from(link).map_err(|e| self.refused(&e))?;
                    pin_link(link, &self.pin)?;
                    // One is enough, and the new one is in place.
                    self.detach_clsact()?;
                    return Ok(Gate::Tcx);
                }
                // Kernels before 6.6 do not know the attach type.
                Err(e) if gate == Gate::Auto && errno_of(&e) == Some(libc::EINVAL) => {}
                Err(e) => return Err(self.refused(&e)),
            }
        }
        self.attach_clsact(tc)?;
        Ok(Gate::Clsact)
    }

    /// Makes the pinned link run this program; false if there is none that could. Behind
    /// another program, or in another namespace on an interface with the same index, the
    /// program can't be replaced where it is: a new link comes first.
    fn replace(&self, tc: &mut SchedClassifier) -> Result<bool, DataPlaneError> {
        let is_first =
            |id| Ok(on_hook(self.iface, self.direction)?.first().is_some_and(|first| first.id() == id));
        let Some(link) = reusable(&self.pin)? else { return Ok(false) };
        if runs(&link, tc.info(), is_first)? {
            return Ok(true);
        }
        if !link.info().is_ok_and(|info| is_first(info.program_id()).unwrap_or(false)) {
            return Ok(false);
        }
        let link = link.try_into().map_err(|e: LinkError| {
            DataPlaneError::from_source(format!("adopt {} on {}", self.program, self.iface), &e)
        })?;
        match tc.attach_to_link(link) {
            Ok(_) => Ok(true),
            Err(e) if errno_of(&e) == Some(GONE) => {
                unpin(&self.pin)?;
                Ok(false)
            }
            Err(e) => {
                Err(DataPlaneError::from_source(format!("replace {} on {}", self.program, self.iface), &e))
            }
        }
    }

    fn refused(&self, error: &(dyn std::error::Error + 'static)) -> DataPlaneError {
        DataPlaneError::from_source(format!("attach {} to {}", self.program, self.iface), error)
    }

    /// Attaches a filter on the clsact qdisc, before all that can be overtaken. It has no
    /// link and stays until somebody removes it; one that stands first is replaced in
    /// place.
    fn attach_clsact(&self, tc: &mut SchedClassifier) -> Result<(), DataPlaneError> {
        if let Err(e) = qdisc_add_clsact(self.iface)
            && errno_of(&e) != Some(libc::EEXIST)
        {
            return Err(self.refused(&e));
        }
        let what = || format!("list the qdiscs of {}", self.iface);
        if let Some(kind) = filters::other_qdisc(self.ifindex).map_err(|e| DataPlaneError::io(what(), e))? {
            return Err(DataPlaneError::Qdisc { iface: self.iface.to_owned(), kind });
        }
        let there = self.filters()?;
        let priority = filters::first_priority(&there);
        let first = there.iter().find(|filter| filter.priority >= priority);
        let in_place = first.filter(|filter| self.is_ours(filter) && filter.priority == priority);
        let attached = if let Some(first) = in_place {
            tc.attach_to_link(self.filter_link(first)?)
        } else {
            let is_free = |handle: &u16| {
                !there.iter().any(|f| f.priority == priority && f.handle == u32::from(*handle))
            };
            let handle = TcHandle::new(0, (CLSACT_HANDLE..).find(is_free).unwrap_or(CLSACT_HANDLE));
            let options = NlOptions { priority, handle, classid: None };
            tc.attach_with_options(self.iface, self.direction, TcAttachOptions::Netlink(options))
        };
        let link = attached.and_then(|id| tc.take_link(id)).map_err(|e| self.refused(&e))?;
        // Dropping it would take the filter off again.
        std::mem::forget(link);
        // Those that were overtaken, and that earlier versions put elsewhere.
        self.remove(there.iter().filter(|filter| self.is_ours(filter) && Some(*filter) != in_place))?;
        if let Some(pin) = &self.filter_pin {
            unpin(pin)?;
            tc.pin(pin).map_err(|e| self.refused(&e))?;
        }
        Ok(())
    }

    /// The filters on the hook, in the order in which they are asked.
    pub(super) fn filters(&self) -> Result<Vec<Filter>, DataPlaneError> {
        filters::list(self.ifindex, self.direction == TcAttachType::Ingress)
            .map_err(|e| DataPlaneError::io(format!("list the filters on {}", self.iface), e))
    }

    /// Removes the program from the hook; succeeds if it is not there.
    pub(super) fn detach(&self) -> Result<(), DataPlaneError> {
        unpin(&self.pin)?;
        self.detach_clsact()
    }

    fn detach_clsact(&self) -> Result<(), DataPlaneError> {
        let there = self.filters()?;
        self.remove(there.iter().filter(|filter| self.is_ours(filter)))?;
        self.filter_pin.as_deref().map_or(Ok(()), unpin)
    }

    fn is_ours(&self, filter: &Filter) -> bool {
        self.family.iter().any(|name| filter.is(name))
    }

    fn filter_link(&self, filter: &Filter) -> Result<SchedClassifierLink, DataPlaneError> {
        let handle = filter.handle.into();
        SchedClassifierLink::attached(self.iface, self.direction, filter.priority, handle, None)
            .map_err(|e| self.refused(&e))
    }

    fn remove<'f>(&self, filters: impl Iterator<Item = &'f Filter>) -> Result<(), DataPlaneError> {
        for filter in filters {
            match self.filter_link(filter)?.detach() {
                Err(e) if errno_of(&e) != Some(libc::ENOENT) => {
                    let what = format!("take {} off {}", self.program, self.iface);
                    return Err(DataPlaneError::from_source(what, &e));
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Does another program come before ours, or has ours gone from there? False if that
    /// can't be read, and for a filter that stands where no other can be overtaken.
    /// `is_filter` says whether there should be one.
    pub(super) fn is_displaced(&self, is_filter: bool) -> bool {
        match reusable(&self.pin) {
            Ok(Some(link)) => {
                let (Ok(link), Ok(programs)) = (link.info(), on_hook(self.iface, self.direction)) else {
                    return false;
                };
                programs.first().is_none_or(|first| first.id() != link.program_id())
            }
            // Nothing else on an interface tells that a filter was there and is gone.
            Ok(None) if is_filter => {
                self.filters().is_ok_and(|filters| !filters::is_first(&filters, self.family))
            }
            Ok(None) | Err(_) => false,
        }
    }

    /// Is there a filter with our program?
    pub(super) fn has_filter(&self) -> Result<bool, DataPlaneError> {
        Ok(self.filters()?.iter().any(|filter| self.is_ours(filter)))
    }
}

/// The programs at a tcx hook of an interface, in the order in which they run.
///
/// # Errors
/// [`DataPlaneError::Kernel`] if the kernel has no tcx or doesn't tell.
pub(super) fn on_hook(iface: &str, direction: TcAttachType) -> Result<Vec<ProgramInfo>, DataPlaneError> {
    SchedClassifier::query_tcx(iface, direction)
        .map(|(_, programs)| programs)
        .map_err(|e: ProgramError| DataPlaneError::from_source(format!("list the programs on {iface}"), &e))
}
