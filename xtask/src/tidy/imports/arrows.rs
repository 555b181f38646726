//! Imports: follows every path of a source to the file that defines its item.

use std::{collections::BTreeSet, path::PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::{
    Attribute, ImplItem, Item, ItemMacro, ItemUse, Macro, Meta, Visibility,
    visit::{self, Visit},
};

use crate::tidy::tree::{Binding, Module, Tree, attributes, is_only_for_tests, used_by};

/// A file names an item that another one defines.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Arrow {
    pub(super) from: PathBuf,
    pub(super) to: PathBuf,
    /// The path that is written, without `crate`, `self` and `super` in front.
    pub(super) name: String,
    /// Where it is written, 1-based.
    pub(super) line: usize,
}

/// Where a path leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Home {
    /// A module as such, which is no arrow: naming an item inside of it is one.
    Module(usize),
    /// Something that this module defines.
    Inside(usize),
}

/// All arrows between files of the tree, in order.
pub(super) fn arrows(tree: &Tree) -> Vec<Arrow> {
    let mut found = BTreeSet::new();
    for (index, module) in tree.modules.iter().enumerate() {
        let mut reader = Reader { tree, index, module, found: &mut found };
        module.items.iter().for_each(|item| reader.visit_item(item));
    }
    found.into_iter().collect()
}

impl Tree {
    /// Where the item of a path is defined. Finds nothing for external crates and
    /// for local names of a function, and several places if a `cfg` condition
    /// chooses.
    fn homes(&self, module: usize, path: &[String], asked: &mut Asked) -> Vec<Home> {
        let Some((first, mut rest)) = path.split_first() else { return Vec::new() };
        let this = self.modules.get(module);
        let mut homes = match first.as_str() {
            "crate" => this.map(|this| Home::Module(this.root)).into_iter().collect(),
            "self" => vec![Home::Module(module)],
            "super" => this.and_then(|this| this.parent).map(Home::Module).into_iter().collect(),
            name => {
                let mut homes = self.lookup(module, name, asked);
                if homes.is_empty() {
                    homes.extend(self.crates.get(name).map(|root| Home::Module(*root)));
                }
                homes
            }
        };
        while let Some((next, after)) = rest.split_first() {
            // A function may be called as a module is; only a module has something inside.
            if homes.iter().any(|home| matches!(home, Home::Module(_))) {
                homes.retain(|home| matches!(home, Home::Module(_)));
            }
            homes = homes.into_iter().flat_map(|home| self.step(home, next, asked)).collect();
            rest = after;
        }
        homes.sort();
        homes.dedup();
        homes
    }

    fn step(&self, home: Home, name: &str, asked: &mut Asked) -> Vec<Home> {
        // After a type comes a variant or an associated item.
        let Home::Module(module) = home else { return vec![home] };
        if name == "super" {
            let parent = self.modules.get(module).and_then(|module| module.parent);
            return parent.map(Home::Module).into_iter().collect();
        }
        if !asked.is_new(module, name) {
            return Vec::new();
        }
        let homes = self.lookup_named(module, name, asked);
        // An item that a macro defines has no name that a parser sees.
        if homes.is_none() { vec![Home::Inside(module)] } else { homes.unwrap_or_default() }
    }

    fn lookup(&self, module: usize, name: &str, asked: &mut Asked) -> Vec<Home> {
        if asked.is_new(module, name) {
            self.lookup_named(module, name, asked).unwrap_or_default()
        } else {
            Vec::new()
        }
    }

    /// `None` if the module knows no such name.
    fn lookup_named(&self, module: usize, name: &str, asked: &mut Asked) -> Option<Vec<Home>> {
        let this = self.modules.get(module)?;
        if let Some(bindings) = this.names.get(name) {
            let homes = bindings.iter().flat_map(|binding| match binding {
                Binding::Item(module) => vec![Home::Inside(*module)],
                Binding::Module(child) => vec![Home::Module(*child)],
                Binding::Use(path) => self.homes(module, path, asked),
            });
            return Some(homes.collect());
        }
        let from_globs = self.by_glob(module, this, name, asked);
        (!from_globs.is_empty()).then_some(from_globs)
    }

    fn by_glob(&self, module: usize, this: &Module, name: &str, asked: &mut Asked) -> Vec<Home> {
        let mut homes = Vec::new();
        for glob in &this.globs {
            for home in self.homes(module, glob, asked) {
                if let Home::Module(other) = home {
                    homes.extend(self.lookup(other, name, asked));
                }
            }
        }
        homes
    }
}

/// Names asked for on the way, so that two modules that use each other's names
/// are not asked for ever.
#[derive(Default)]
struct Asked(BTreeSet<(usize, String)>);

impl Asked {
    fn is_new(&mut self, module: usize, name: &str) -> bool {
        self.0.insert((module, name.to_owned()))
    }
}

/// Reads the items of one module.
struct Reader<'a> {
    tree: &'a Tree,
    index: usize,
    module: &'a Module,
    found: &'a mut BTreeSet<Arrow>,
}

impl Reader<'_> {
    fn name(&mut self, path: &[String], line: usize) {
        let Some(first) = path.first() else { return };
        // What a `use` brought has its arrow there, with all that belongs to it.
        let brought = self.module.names.contains_key(first)
            && (path.len() == 1 || !self.leads_to_module(first))
            || path.len() == 1 && self.module.globs.is_empty();
        if brought {
            return;
        }
        for home in self.tree.homes(self.index, path, &mut Asked::default()) {
            self.point(home, path, line);
        }
    }

    fn leads_to_module(&self, name: &str) -> bool {
        let homes = self.tree.homes(self.index, &[name.to_owned()], &mut Asked::default());
        homes.iter().any(|home| matches!(home, Home::Module(_)))
    }

    fn point(&mut self, home: Home, path: &[String], line: usize) {
        let Home::Inside(module) = home else { return };
        let Some(to) = self.tree.modules.get(module).map(|module| module.file.clone()) else { return };
        if to == self.module.file {
            return;
        }
        let written = path.iter().skip_while(|part| ["crate", "self", "super"].contains(&part.as_str()));
        let name = written.map(String::as_str).collect::<Vec<_>>().join("::");
        self.found.insert(Arrow { from: self.module.file.clone(), to, name, line });
    }

    /// Paths among the tokens of a macro, which the parser does not look into.
    fn scan(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let (mut line, mut colons) = (0, 0);
        for token in tokens {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' => {
                    colons += 1;
                    continue;
                }
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.name(&path, line);
                        path.clear();
                    }
                    if path.is_empty() {
                        line = ident.span().start().line;
                    }
                    path.push(ident.to_string());
                }
                TokenTree::Group(group) => {
                    self.name(&path, line);
                    path.clear();
                    self.scan(group.stream());
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {
                    self.name(&path, line);
                    path.clear();
                }
            }
            colons = 0;
        }
        self.name(&path, line);
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_only_for_tests(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let attributes: &[Attribute] = match item {
            ImplItem::Const(item) => &item.attrs,
            ImplItem::Fn(item) => &item.attrs,
            ImplItem::Type(item) => &item.attrs,
            ImplItem::Macro(item) => &item.attrs,
            ImplItem::Verbatim(_) | _ => &[],
        };
        if !is_only_for_tests(attributes) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        for used in used_by(item).iter().filter(|used| !used.glob) {
            for home in self.tree.homes(self.index, &used.path, &mut Asked::default()) {
                self.point(home, &used.path, used.line);
            }
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<_> = path.segments.iter().map(|part| part.ident.to_string()).collect();
        let line = path.segments.first().map_or(0, |part| part.ident.span().start().line);
        self.name(&parts, line);
        visit::visit_path(self, path);
    }

    /// A macro's body has a meaning only where the macro is called.
    fn visit_item_macro(&mut self, item: &'ast ItemMacro) {
        if item.ident.is_none() {
            visit::visit_item_macro(self, item);
        }
    }

    fn visit_macro(&mut self, called: &'ast Macro) {
        self.visit_path(&called.path);
        self.scan(called.tokens.clone());
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if let Meta::List(list) = &attribute.meta {
            self.scan(list.tokens.clone());
        }
    }

    /// `pub(in crate::…)` names the modules that may import, and imports nothing.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}
}
