//! The modules of a few packages, as their sources declare them, and the names
//! that each module knows. What only tests are compiled with is left out: those
//! modules are not even opened.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use syn::{
    Attribute, Item, ItemUse, Meta, UseTree,
    punctuated::Punctuated,
    visit::{self, Visit},
};

/// The texts of files by their paths in the repository.
pub(super) type Sources = BTreeMap<PathBuf, String>;

/// A package that tidy checks.
pub(super) struct Package {
    /// What others call its library; a program is called by nobody.
    library: Option<&'static str>,
    pub(super) sources: &'static str,
    /// The room that it is, in the words of the walls; none for `vip-ctl`, whose
    /// rooms are its files and folders.
    pub(super) room: Option<&'static str>,
}

/// Everything that is no test.
pub(super) const PACKAGES: &[Package] = &[
    Package { library: Some("vip_common"), sources: "vip-common/src", room: Some("common") },
    Package { library: Some("vip_engine"), sources: "vip-ctl/engine/src", room: Some("engine") },
    Package { library: Some("vip_lease"), sources: "vip-ctl/lease/src", room: Some("lease") },
    Package { library: Some("vip_ctl"), sources: CONTROL, room: None },
    Package { library: Some("vip_ebpf"), sources: "vip-ebpf/src", room: Some("ebpf") },
    Package { library: None, sources: "xtask/src", room: Some("xtask") },
];

/// The package whose folders are rooms.
pub(super) const CONTROL: &str = "vip-ctl/src";

/// A module and what its names mean.
pub(super) struct Module {
    /// The file that it is written in; an inline module is in its parent's.
    pub(super) file: PathBuf,
    /// The module that declares it; none declares the root of a crate.
    pub(super) parent: Option<usize>,
    /// The root of its crate.
    pub(super) root: usize,
    pub(super) names: BTreeMap<String, Vec<Binding>>,
    /// Modules all of whose names it uses.
    pub(super) globs: Vec<Vec<String>>,
    pub(super) items: Vec<Item>,
}

/// What a name in a module stands for.
#[derive(Clone, Debug)]
pub(super) enum Binding {
    /// Something that a module defines, mostly the one that has the name.
    Item(usize),
    Module(usize),
    /// What is found at a path.
    Use(Vec<String>),
}

/// All modules, and where the crates begin that others can name.
#[derive(Default)]
pub(super) struct Tree {
    pub(super) modules: Vec<Module>,
    pub(super) crates: BTreeMap<String, usize>,
    /// Macros that a module gives to the root of its crate.
    exported: Vec<(String, usize)>,
}

/// One name that a `use` brings: its path, and how it is called from then on.
pub(super) struct Used {
    pub(super) path: Vec<String>,
    /// No name with `_`.
    pub(super) name: Option<String>,
    pub(super) glob: bool,
    /// 1-based.
    pub(super) line: usize,
}

/// Directories in which modules declared in a file are found.
struct Below {
    dir: PathBuf,
}

impl Tree {
    /// All packages that are there.
    ///
    /// # Errors
    /// When a file that belongs to one is missing or is not Rust.
    pub(super) fn of(sources: &Sources) -> anyhow::Result<Self> {
        let mut tree = Self::default();
        for package in PACKAGES {
            for (root, name) in [("lib.rs", package.library), ("main.rs", None)] {
                let root = Path::new(package.sources).join(root);
                if sources.contains_key(&root) {
                    tree.add_crate(name, &root, sources)?;
                }
            }
        }
        Ok(tree)
    }

    /// Adds the crate that begins in `root`, with every module that it declares.
    /// `name` is what other crates call it; a program has none.
    ///
    /// # Errors
    /// When a file of it is missing or is not Rust.
    fn add_crate(&mut self, name: Option<&str>, root: &Path, sources: &Sources) -> anyhow::Result<()> {
        let dir = root.parent().unwrap_or(Path::new("")).to_owned();
        let index = self.open(root, None, Below { dir }, sources)?;
        if let Some(root) = self.modules.get_mut(index) {
            for (name, module) in self.exported.drain(..) {
                root.names.entry(name).or_default().push(Binding::Item(module));
            }
        }
        if let Some(name) = name {
            self.crates.insert(name.to_owned(), index);
        }
        Ok(())
    }

    fn open(
        &mut self,
        file: &Path,
        parent: Option<usize>,
        below: Below,
        sources: &Sources,
    ) -> anyhow::Result<usize> {
        let text = sources.get(file).with_context(|| format!("{} is missing", file.display()))?;
        let parsed = syn::parse_file(text).map_err(|error| {
            let line = error.span().start().line;
            anyhow::anyhow!("{}:{line}: cannot be parsed: {error}", file.display())
        })?;
        let items = if is_only_for_tests(&parsed.attrs) { Vec::new() } else { parsed.items };
        self.declare(file, parent, &below, items, sources)
    }

    fn declare(
        &mut self,
        file: &Path,
        parent: Option<usize>,
        below: &Below,
        items: Vec<Item>,
        sources: &Sources,
    ) -> anyhow::Result<usize> {
        let index = self.modules.len();
        let root = parent.and_then(|parent| self.modules.get(parent)).map_or(index, |parent| parent.root);
        let mut names = Names { module: index, names: BTreeMap::new(), globs: Vec::new() };
        self.modules.push(Module {
            file: file.to_owned(),
            parent,
            root,
            names: BTreeMap::new(),
            globs: Vec::new(),
            items: Vec::new(),
        });
        let mut kept = Vec::new();
        for item in items {
            if is_only_for_tests(attributes(&item)) {
                // The name is there, and leads nowhere.
                names.names.entry(name_of(&item).unwrap_or_default()).or_default();
                continue;
            }
            let Item::Mod(module) = item else {
                if let Item::Macro(made) = &item
                    && made.attrs.iter().any(|attribute| attribute.path().is_ident("macro_export"))
                {
                    self.exported.extend(name_of(&item).map(|name| (name, index)));
                }
                names.visit_item(&item);
                kept.push(item);
                continue;
            };
            let name = module.ident.to_string();
            let inside = Below { dir: below.dir.join(&name) };
            let child = if let Some((_, items)) = module.content {
                self.declare(file, Some(index), &inside, items, sources)?
            } else {
                let flat = below.dir.join(format!("{name}.rs"));
                let child = if sources.contains_key(&flat) { flat } else { inside.dir.join("mod.rs") };
                self.open(&child, Some(index), inside, sources)
                    .with_context(|| format!("{} declares mod {name}", file.display()))?
            };
            names.bind(&name, Binding::Module(child));
        }
        if let Some(module) = self.modules.get_mut(index) {
            module.names = names.names;
            module.globs = names.globs;
            module.items = kept;
        }
        Ok(index)
    }
}

/// Collects what a module's items are called, and what its `use`s bring, also
/// those inside of functions.
struct Names {
    module: usize,
    names: BTreeMap<String, Vec<Binding>>,
    globs: Vec<Vec<String>>,
}

impl Names {
    fn bind(&mut self, name: &str, binding: Binding) {
        self.names.entry(name.to_owned()).or_default().push(binding);
    }
}

impl<'ast> Visit<'ast> for Names {
    fn visit_item(&mut self, item: &'ast Item) {
        if is_only_for_tests(attributes(item)) {
            return;
        }
        if let Some(name) = name_of(item) {
            self.bind(&name, Binding::Item(self.module));
        }
        visit::visit_item(self, item);
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        for used in used_by(item) {
            if used.glob {
                self.globs.push(used.path);
            } else if let Some(name) = used.name {
                self.bind(&name, Binding::Use(used.path));
            }
        }
    }
}

fn name_of(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Mod(item) => &item.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        Item::ExternCrate(_)
        | Item::ForeignMod(_)
        | Item::Impl(_)
        | Item::TraitAlias(_)
        | Item::Use(_)
        | Item::Verbatim(_)
        | _ => return None,
    };
    Some(ident.to_string())
}

/// Each name of a `use`, its braces opened.
pub(super) fn used_by(item: &ItemUse) -> Vec<Used> {
    let mut found = Vec::new();
    open_braces(&item.tree, &mut Vec::new(), &mut found);
    found
}

fn open_braces(tree: &UseTree, path: &mut Vec<String>, found: &mut Vec<Used>) {
    let mut leaf = |path: &[String], last: Option<&syn::Ident>, name: Option<String>, line| {
        let mut path = path.to_vec();
        // `{self}` is the module in front of the braces.
        path.extend(last.filter(|last| *last != "self" || path.is_empty()).map(ToString::to_string));
        let name = name.or_else(|| path.last().cloned()).filter(|name| name != "_");
        found.push(Used { path, name, glob: last.is_none(), line });
    };
    match tree {
        UseTree::Path(part) => {
            path.push(part.ident.to_string());
            open_braces(&part.tree, path, found);
            path.pop();
        }
        UseTree::Name(part) => leaf(path, Some(&part.ident), None, part.ident.span().start().line),
        UseTree::Rename(part) => {
            leaf(path, Some(&part.ident), Some(part.rename.to_string()), part.ident.span().start().line);
        }
        UseTree::Glob(part) => leaf(path, None, None, part.star_token.spans[0].start().line),
        UseTree::Group(part) => part.items.iter().for_each(|tree| open_braces(tree, path, found)),
    }
}

/// The attributes of an item.
pub(super) fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        Item::Verbatim(_) | _ => &[],
    }
}

/// Whether attributes say that only tests are compiled with this.
pub(super) fn is_only_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().filter(|attribute| attribute.path().is_ident("cfg")).any(|attribute| {
        let condition = attribute.parse_args::<Meta>();
        condition.is_ok_and(|condition| without_tests(&condition) == Some(false))
    })
}

/// What a condition of `cfg` comes to where there are no tests; `None` where that
/// depends on something else.
fn without_tests(condition: &Meta) -> Option<bool> {
    let Meta::List(list) = condition else {
        return condition.path().is_ident("test").then_some(false);
    };
    let parts = list.parse_args_with(Punctuated::<Meta, syn::Token![,]>::parse_terminated).ok()?;
    let mut parts = parts.iter().map(without_tests);
    if list.path.is_ident("not") {
        parts.next()?.map(|part| !part)
    } else if list.path.is_ident("all") {
        parts.any(|part| part == Some(false)).then_some(false)
    } else if list.path.is_ident("any") {
        let parts: Vec<_> = parts.collect();
        if parts.contains(&Some(true)) {
            Some(true)
        } else {
            parts.iter().all(|part| *part == Some(false)).then_some(false)
        }
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_missing_or_no_rust_is_named() {
        let error = |files: &[(&str, &str)]| {
            let sources =
                files.iter().map(|(file, text)| (PathBuf::from(file), (*text).to_owned())).collect();
            format!("{:#}", Tree::of(&sources).err().expect("an error"))
        };
        let missing = error(&[("vip-ctl/src/lib.rs", "mod gone;")]);
        assert_eq!(missing, "vip-ctl/src/lib.rs declares mod gone: vip-ctl/src/gone/mod.rs is missing");
        let broken = error(&[("vip-ctl/src/lib.rs", "//! A.\nfn (")]);
        assert!(broken.starts_with("vip-ctl/src/lib.rs:2: cannot be parsed"), "{broken}");
    }
}
