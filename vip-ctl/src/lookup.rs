//! Finds what a person names: a group by its name or by one of its VIPs, a node
//! by its name. One rule, and one sentence for a miss.

use crate::{config, exit::Exit, report};

/// Something that has a name, and may have VIPs.
pub trait Named {
    /// Its name.
    fn name(&self) -> &str;

    /// Is this text one of its VIPs?
    fn has_vip(&self, _text: &str) -> bool {
        false
    }
}

impl Named for config::Group {
    fn name(&self) -> &str {
        &self.name
    }

    fn has_vip(&self, text: &str) -> bool {
        text.parse().is_ok_and(|address| self.vips.contains(&address))
    }
}

impl Named for report::GroupStatus {
    fn name(&self) -> &str {
        &self.name
    }

    fn has_vip(&self, text: &str) -> bool {
        self.vips.iter().any(|vip| vip.address == text)
    }
}

impl Named for config::Node {
    fn name(&self) -> &str {
        &self.name
    }
}

/// Nothing has this name, or a name is needed and none was given.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Miss {
    /// [`Exit::NoSuch`], or [`Exit::Usage`] where a name is needed.
    pub exit: Exit,
    /// What is missing and what there is, in one sentence.
    pub message: String,
}

impl Miss {
    fn no_such(message: String) -> Self {
        Self { exit: Exit::NoSuch, message }
    }
}

/// The place of the group that a person means: by its name, by one of its VIPs,
/// or the only group if they name none.
///
/// # Errors
/// [`Miss`], which lists the groups that there are.
pub fn group<T: Named>(wanted: Option<&str>, groups: &[T]) -> Result<usize, Miss> {
    match (wanted, groups) {
        (_, []) => Err(Miss::no_such("this node has no group: add a [[group]] to its vip.toml".into())),
        (None, [_]) => Ok(0),
        (None, _) => {
            let message = format!("there are several groups: name one of {}", names(groups.iter()));
            Err(Miss { exit: Exit::Usage, message })
        }
        (Some(name), _) => {
            let found = groups.iter().position(|group| group.name() == name);
            found.or_else(|| groups.iter().position(|group| group.has_vip(name))).ok_or_else(|| {
                let known = names(groups.iter());
                Miss::no_such(format!("there is no group or VIP {name:?}: name one of {known}"))
            })
        }
    }
}

/// The place of the node with this name. If there is none, the error lists the
/// nodes that `is_told` selects.
///
/// # Errors
/// [`Miss`], which lists those nodes.
pub fn node(name: &str, nodes: &[config::Node], is_told: fn(&config::Node) -> bool) -> Result<usize, Miss> {
    nodes.iter().position(|node| node.name == name).ok_or_else(|| {
        let known = names(nodes.iter().filter(|node| is_told(node)));
        Miss::no_such(format!("there is no node {name:?}: name one of {known}"))
    })
}

fn names<'a, T: Named + 'a>(all: impl Iterator<Item = &'a T>) -> String {
    all.map(Named::name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Thing(&'static str, &'static str);

    impl Named for Thing {
        fn name(&self) -> &str {
            self.0
        }

        fn has_vip(&self, text: &str) -> bool {
            self.1 == text
        }
    }

    #[test]
    fn a_group_is_found_by_name_by_vip_or_alone() {
        let all = [Thing("db", "10.0.0.9"), Thing("web", "10.0.0.8")];
        assert_eq!(group(Some("web"), &all), Ok(1));
        assert_eq!(group(Some("10.0.0.8"), &all), Ok(1));
        assert_eq!(group(None, &all[..1]), Ok(0));
        // A name takes precedence over a VIP, even if a group has a VIP for its name.
        let odd = [Thing("db", "10.0.0.9"), Thing("10.0.0.9", "10.0.0.8")];
        assert_eq!(group(Some("10.0.0.9"), &odd), Ok(1));
    }

    #[test]
    fn a_miss_names_what_there_is() {
        let all = [Thing("db", "10.0.0.9"), Thing("web", "10.0.0.8")];
        let said = |wanted, groups: &[Thing]| group(wanted, groups).map_err(|miss| (miss.exit, miss.message));
        let miss = said(Some("dbb"), &all).expect_err("there is none");
        assert_eq!(miss, (Exit::NoSuch, "there is no group or VIP \"dbb\": name one of db, web".into()));
        let miss = said(None, &all).expect_err("there are two");
        assert_eq!(miss, (Exit::Usage, "there are several groups: name one of db, web".into()));
        assert_eq!(said(None, &[]).expect_err("there is none").0, Exit::NoSuch);
    }
}
