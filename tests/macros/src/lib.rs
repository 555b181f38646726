//! The attributes of integration tests: what a test needs of its host, and that
//! it is counted as skipped where that is missing.

use proc_macro::TokenStream;
use proc_macro2::TokenStream as Tokens;
use quote::quote;
use syn::{
    ItemFn, LitStr, Token,
    parse::{Parse, Parser as _},
    parse_macro_input,
    punctuated::Punctuated,
};

/// A test that makes network namespaces: `#[lab_test]`, and `#[lab_test("nft")]` where it
/// needs these programs, too; `"link bond"` stands for a kernel that has such interfaces.
/// Where it can't be run, it says so and is counted as skipped.
///
/// Inside it, `TEST` is its name, for `vip_tests::lab::skip::note`.
#[proc_macro_attribute]
pub fn lab_test(programs: TokenStream, test: TokenStream) -> TokenStream {
    let test = parse_macro_input!(test as ItemFn);
    let needs = quote!(::vip_tests::lab::skip::Need::Namespaces);
    expand(&needs, programs, test).unwrap_or_else(|error| error.to_compile_error()).into()
}

/// A test that needs these programs of its host, and no privilege: `#[tool_test("bash")]`.
///
/// Otherwise as [`macro@lab_test`].
#[proc_macro_attribute]
pub fn tool_test(programs: TokenStream, test: TokenStream) -> TokenStream {
    let test = parse_macro_input!(test as ItemFn);
    let needs = quote!(::vip_tests::lab::skip::Need::Nothing);
    expand(&needs, programs, test).unwrap_or_else(|error| error.to_compile_error()).into()
}

fn expand(needs: &Tokens, programs: TokenStream, mut test: ItemFn) -> syn::Result<Tokens> {
    let list = Punctuated::<LitStr, Token![,]>::parse_terminated;
    let programs = list.parse(programs)?;
    let name = test.sig.ident.to_string();
    let body = &test.block.stmts;
    let block = quote!({
        const TEST: &str = #name;
        if ::vip_tests::lab::skip::is_skipped(TEST, #needs, &[#programs]) {
            return ::core::result::Result::Ok(());
        }
        #(#body)*
    });
    *test.block = syn::Block::parse.parse2(block)?;
    Ok(quote!(#[test] #test))
}
