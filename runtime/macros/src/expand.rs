//! What the attributes become.
//!
//! Owns the functions that are put around what was written: an inner `body`, which is that, and an outer
//! one of its name, which drives it. The names that they use are absolute paths into `coreloop`.

use proc_macro::{Delimiter, Group, Ident, Span, TokenStream, TokenTree};

use crate::head::{Error, Function, TestArgs};

/// Seeds of a simulated test that does not say how many.
const SEEDS: u64 = 100;

pub(crate) fn main(args: TokenStream, item: TokenStream) -> Result<TokenStream, Error> {
    if let Some(first) = args.into_iter().next() {
        return Err(Error::new(first.span(), "`#[coreloop::main]` takes no arguments"));
    }
    let function = Function::read("#[coreloop::main]", item)?;
    must_be_plain_async("#[coreloop::main]", &function)?;
    let drive = tokens("::coreloop::__macros::main(body())");
    Ok(around(function, TokenStream::new(), true, drive))
}

pub(crate) fn test(args: TokenStream, item: TokenStream) -> Result<TokenStream, Error> {
    let args = TestArgs::read(args)?;
    let function = Function::read("#[coreloop::test]", item)?;
    let test = tokens("#[::core::prelude::v1::test]");
    if !args.sim {
        must_be_plain_async("#[coreloop::test]", &function)?;
        return Ok(around(function, test, true, tokens("::coreloop::__macros::test(body())")));
    }
    let set_up = match (function.is_async, function.takes_nothing()) {
        (true, true) => "{ sim.client(\"test\", body); }",
        (true, false) => {
            "{ let own = ::core::clone::Clone::clone(sim); sim.client(\"test\", || body(own)); }"
        }
        (false, false) => "body(sim)",
        (false, true) => {
            let text = "a simulated test is an `async fn`, or a `fn` that takes `sim: &Sim` and adds \
                        hosts to it";
            return Err(Error::new(function.name.span(), text));
        }
    };
    let seeds = args.seeds.unwrap_or(SEEDS);
    let drive = tokens(&format!("::coreloop::sim::check({seeds}u64, |sim| {set_up})"));
    Ok(around(function, test, false, drive))
}

fn must_be_plain_async(which: &str, function: &Function) -> Result<(), Error> {
    if !function.is_async {
        return Err(Error::new(function.name.span(), format!("`{which}` is for an `async fn`")));
    }
    if !function.takes_nothing() {
        let text = format!("a function under `{which}` takes no arguments");
        return Err(Error::new(function.parameters.span(), text));
    }
    Ok(())
}

/// `attributes extra visibility fn name() [-> result] { fn body… ; drive }`.
fn around(
    function: Function,
    extra: TokenStream,
    gives_result: bool,
    drive: TokenStream,
) -> TokenStream {
    let Function { attributes, visibility, is_async, name, parameters, result, body } = function;
    let mut inner = TokenStream::new();
    if is_async {
        inner.extend(tokens("async"));
    }
    inner.extend(tokens("fn"));
    inner.extend([TokenTree::from(Ident::new("body", Span::call_site())), parameters.into()]);
    inner.extend(result.clone());
    inner.extend([TokenTree::from(body)]);
    inner.extend(drive);

    let mut outer = attributes;
    outer.extend(extra);
    outer.extend(visibility);
    outer.extend(tokens("fn"));
    outer.extend([TokenTree::from(name)]);
    outer.extend(tokens("()"));
    if gives_result {
        outer.extend(result);
    }
    outer.extend([TokenTree::from(Group::new(Delimiter::Brace, inner))]);
    outer
}

fn tokens(text: &str) -> TokenStream {
    match text.parse() {
        Ok(tokens) => tokens,
        Err(e) => unreachable!("{text:?} is fixed text of tokens: {e}"),
    }
}
