//! Reading what an attribute stands on, and what it was given.
//!
//! Owns [`Function`], a function cut into the parts that matter here, [`TestArgs`], and [`Error`], which
//! points at the token that is wrong. Knows nothing of what becomes of them.

use std::iter::Peekable;

use proc_macro::token_stream::IntoIter;
use proc_macro::{Delimiter, Group, Ident, Literal, Punct, Spacing, Span, TokenStream, TokenTree};

/// What is wrong, and where.
pub(crate) struct Error {
    at: Span,
    text: String,
}

impl Error {
    pub(crate) fn new(at: Span, text: impl Into<String>) -> Self {
        Self { at, text: text.into() }
    }

    /// `::core::compile_error!{"…"}` at that place.
    pub(crate) fn into_tokens(self) -> TokenStream {
        let colon = |spacing| TokenTree::from(Punct::new(':', spacing));
        let text = TokenTree::from(Literal::string(&self.text)).into();
        let tokens = [
            colon(Spacing::Joint),
            colon(Spacing::Alone),
            Ident::new("core", self.at).into(),
            colon(Spacing::Joint),
            colon(Spacing::Alone),
            Ident::new("compile_error", self.at).into(),
            Punct::new('!', Spacing::Alone).into(),
            Group::new(Delimiter::Brace, text).into(),
        ];
        let at = self.at;
        let placed = tokens.into_iter().map(|mut token| {
            token.set_span(at);
            token
        });
        placed.collect()
    }
}

/// A function without generics: `attributes visibility [async] fn name parameters -> result body`.
pub(crate) struct Function {
    pub(crate) attributes: TokenStream,
    pub(crate) visibility: TokenStream,
    /// The words before `fn`.
    pub(crate) is_async: bool,
    pub(crate) name: Ident,
    pub(crate) parameters: Group,
    /// All between the parameters and the body.
    pub(crate) result: TokenStream,
    pub(crate) body: Group,
}

impl Function {
    /// Reads what the attribute `which` stands on.
    pub(crate) fn read(which: &str, item: TokenStream) -> Result<Self, Error> {
        let mut tokens = item.into_iter().peekable();
        let attributes = take_attributes(&mut tokens);
        let visibility = take_visibility(&mut tokens);
        let mut is_async = false;
        loop {
            match tokens.next() {
                Some(TokenTree::Ident(word)) => match word.to_string().as_str() {
                    "fn" => break,
                    "async" => is_async = true,
                    "unsafe" | "const" | "extern" => {
                        let text = format!("`{which}` is not for `{word}` functions");
                        return Err(Error::new(word.span(), text));
                    }
                    _ => return Err(no_function(which, word.span())),
                },
                other => {
                    let at = other.map_or_else(Span::call_site, |t| t.span());
                    return Err(no_function(which, at));
                }
            }
        }
        let Some(TokenTree::Ident(name)) = tokens.next() else {
            return Err(no_function(which, Span::call_site()));
        };
        let parameters = match tokens.next() {
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis => group,
            other => {
                let at = other.map_or_else(|| name.span(), |t| t.span());
                let text = format!("a function under `{which}` has no generic parameters");
                return Err(Error::new(at, text));
            }
        };
        let mut rest: Vec<TokenTree> = tokens.collect();
        let body = match rest.pop() {
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => group,
            _ => return Err(Error::new(name.span(), "the function has no body")),
        };
        let result = rest.into_iter().collect();
        Ok(Self { attributes, visibility, is_async, name, parameters, result, body })
    }

    pub(crate) fn takes_nothing(&self) -> bool {
        self.parameters.stream().is_empty()
    }
}

fn no_function(which: &str, at: Span) -> Error {
    Error::new(at, format!("`{which}` is for functions"))
}

fn take_attributes(tokens: &mut Peekable<IntoIter>) -> TokenStream {
    let mut taken = Vec::new();
    while matches!(tokens.peek(), Some(TokenTree::Punct(p)) if p.as_char() == '#') {
        taken.extend(tokens.next());
        taken.extend(tokens.next());
    }
    taken.into_iter().collect()
}

fn take_visibility(tokens: &mut Peekable<IntoIter>) -> TokenStream {
    let mut taken = Vec::new();
    if matches!(tokens.peek(), Some(TokenTree::Ident(i)) if i.to_string() == "pub") {
        taken.extend(tokens.next());
        let within = |t: &TokenTree| matches!(t, TokenTree::Group(g) if g.delimiter() == Delimiter::Parenthesis);
        if tokens.peek().is_some_and(within) {
            taken.extend(tokens.next());
        }
    }
    taken.into_iter().collect()
}

/// What `#[coreloop::test(…)]` was given.
#[derive(Default)]
pub(crate) struct TestArgs {
    pub(crate) sim: bool,
    pub(crate) seeds: Option<u64>,
}

impl TestArgs {
    pub(crate) fn read(args: TokenStream) -> Result<Self, Error> {
        let mut tokens = args.into_iter();
        let mut read = Self::default();
        let mut seeds_at = Span::call_site();
        while let Some(token) = tokens.next() {
            match token.to_string().as_str() {
                "sim" => read.sim = true,
                "seeds" => {
                    seeds_at = token.span();
                    read.seeds = Some(number(token.span(), &mut tokens)?);
                }
                other => {
                    let text =
                        format!("unknown argument `{other}`; there are `sim` and `seeds = 100`");
                    return Err(Error::new(token.span(), text));
                }
            }
            match tokens.next() {
                None => break,
                Some(TokenTree::Punct(p)) if p.as_char() == ',' => {}
                Some(other) => {
                    return Err(Error::new(other.span(), "a comma is missing before this"));
                }
            }
        }
        if read.seeds.is_some() && !read.sim {
            let text = "`seeds` is for simulated tests: `#[coreloop::test(sim, seeds = 100)]`";
            return Err(Error::new(seeds_at, text));
        }
        Ok(read)
    }
}

/// The rest of `seeds = 100`.
fn number(seeds: Span, tokens: &mut IntoIter) -> Result<u64, Error> {
    let text = "write how many: `seeds = 100`";
    match tokens.next() {
        Some(TokenTree::Punct(p)) if p.as_char() == '=' => {}
        other => return Err(Error::new(other.map_or(seeds, |t| t.span()), text)),
    }
    let Some(value) = tokens.next() else { return Err(Error::new(seeds, text)) };
    let digits = value.to_string().replace('_', "");
    match digits.parse::<u64>() {
        Ok(0) => Err(Error::new(value.span(), "with no seed at all the test would test nothing")),
        Ok(n) => Ok(n),
        Err(_) => Err(Error::new(value.span(), text)),
    }
}
