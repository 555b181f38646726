//! How long functions are, tests apart. Lines count from `fn` to the closing brace,
//! comments included; a function inside of another one counts for both.

use std::path::Path;

use proc_macro2::Span;
use syn::{
    ImplItemFn, Item, ItemFn, Signature, TraitItemFn,
    spanned::Spanned as _,
    visit::{self, Visit},
};

use super::{
    Finding,
    tree::{Tree, attributes, is_only_for_tests},
};

/// Functions have at most so many lines: one that needs more does several things.
const LINES: usize = 80;

/// The functions that are too long.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for module in &tree.modules {
        let mut reader = Reader { file: &module.file, findings: &mut findings };
        module.items.iter().for_each(|item| reader.visit_item(item));
    }
    findings
}

struct Reader<'a> {
    file: &'a Path,
    findings: &'a mut Vec<Finding>,
}

impl Reader<'_> {
    fn measure(&mut self, signature: &Signature, end: Span) {
        let first = signature.span().start().line;
        let lines = end.end().line - first + 1;
        if lines > LINES {
            let rule = format!("{} has {lines} lines: {LINES} at most", signature.ident);
            self.findings.push(Finding::new(self.file, first, rule));
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_only_for_tests(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        self.measure(&item.sig, item.block.span());
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        if !is_only_for_tests(&item.attrs) {
            self.measure(&item.sig, item.block.span());
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_trait_item_fn(&mut self, item: &'ast TraitItemFn) {
        self.measure(&item.sig, item.span());
        visit::visit_trait_item_fn(self, item);
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// The functions that are too long in this source.
    fn found(text: &str) -> Vec<String> {
        let sources = [(PathBuf::from("vip-ctl/src/lib.rs"), text.to_owned())].into();
        let tree = Tree::of(&sources).expect("it can be parsed");
        check(&tree).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_function_of_more_lines_than_80_is_found_wherever_it_is() {
        for (before, after) in [("", ""), ("struct A; impl A {", "}"), ("trait A {", "}"), ("mod a {", "}")] {
            let function = |lines: usize| {
                format!(
                    "\n{before}\n/// Docs.\n#[inline]\npub fn a(\n) {{{}}}\n{after}",
                    "\n".repeat(lines - 2)
                )
            };
            let function =
                |lines| function(lines).replace("pub ", if before.contains("trait") { "" } else { "pub " });
            assert_eq!(found(&function(80)), [""; 0], "{before}");
            assert_eq!(
                found(&function(81)),
                ["vip-ctl/src/lib.rs:5: a has 81 lines: 80 at most"],
                "{before}"
            );
        }
    }

    #[test]
    fn tests_are_as_long_as_they_like() {
        let long = "\n".repeat(100);
        let inside = format!("#[cfg(test)] fn a() {{{long}}}");
        for text in [
            inside.clone(),
            format!("struct A; impl A {{ {inside} }}"),
            format!("#[cfg(test)] mod tests {{ #[test] fn a() {{{long}}} }}"),
        ] {
            assert_eq!(found(&text), [""; 0], "{text}");
        }
    }
}
