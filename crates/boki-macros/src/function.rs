//! `#[boki::function]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::spanned::Spanned;
use syn::{Attribute, Error, Expr, FnArg, GenericArgument, ItemFn, Lit, Meta, PathArguments, ReturnType, Type};

use crate::options::Options;

pub(crate) fn expand(options: TokenStream, item: TokenStream) -> syn::Result<TokenStream> {
    let options = Options::parse(options)?;
    let item: ItemFn = syn::parse2(item)?;
    let signature = &item.sig;
    if signature.asyncness.is_none() {
        return Err(Error::new(signature.fn_token.span, "a function of Boki is an `async fn`"));
    }
    if !signature.generics.params.is_empty() {
        return Err(Error::new(signature.generics.span(), "a function of Boki has no generic parameters"));
    }
    let parameters = Parameters::of(&item)?;
    let output = output(&signature.output)?;

    let ident = &signature.ident;
    let name = options.name.unwrap_or_else(|| ident.to_string().trim_start_matches("r#").to_owned());
    let description = first_line(&item.attrs);
    let (timeout_ms, max_attempts) = (options.timeout_ms, options.max_attempts);

    let mut arguments = Vec::new();
    let mut streams_input = options.http;
    if parameters.cx {
        arguments.push(quote! { &cx });
    }
    let read_input = match parameters.input {
        None => quote! { let _ = input; },
        Some(input) => {
            arguments.push(quote! { input });
            let read = if options.http {
                quote! { ::boki::http::Request::of(input) }
            } else if is_called(input, "InputStream") {
                streams_input = true;
                quote! { input.into_stream() }
            } else if is_called(input, "Bytes") {
                quote! { input.into_bytes() }
            } else {
                quote! { input.json()? }
            };
            quote! { let input: #input = #read; }
        }
    };
    let run = if options.http {
        quote! {
            let result = #ident::call(#(#arguments),*).await;
            ::boki::http::Response::output(result.map_err(::core::convert::Into::into))
        }
    } else {
        let write_output = if is_called(output, "Bytes") {
            quote! { ::core::result::Result::Ok(::boki::Output::bytes(output)) }
        } else if is_called(output, "OutputStream") {
            quote! { ::core::result::Result::Ok(::boki::Output::from(output)) }
        } else {
            quote! { ::boki::Output::json(&output) }
        };
        quote! {
            let output: #output = #ident::call(#(#arguments),*).await?;
            #write_output
        }
    };

    let (visibility, attributes, block) = (&item.vis, &item.attrs, &item.block);
    let documentation = attributes.iter().filter(|attribute| attribute.path().is_ident("doc"));
    let inputs = &signature.inputs;
    let returns = &signature.output;
    Ok(quote! {
        #(#documentation)*
        #[derive(Clone, Copy, Debug)]
        #[allow(non_camel_case_types)]
        #visibility struct #ident {}

        #[doc(hidden)]
        #visibility fn #ident() -> #ident {
            #ident {}
        }

        impl #ident {
            #(#attributes)*
            #[allow(dead_code)]
            #visibility async fn call(#inputs) #returns #block
        }

        impl ::boki::Function for #ident {
            fn spec(&self) -> ::boki::FunctionSpec {
                ::boki::FunctionSpec {
                    name: #name.into(),
                    description: #description.into(),
                    max_attempts: #max_attempts,
                    timeout_ms: #timeout_ms,
                    streams_input: #streams_input,
                }
            }

            fn run(&self, cx: ::boki::Cx, input: ::boki::Input) -> ::boki::Running {
                ::std::boxed::Box::pin(async move {
                    let _ = &cx;
                    #read_input
                    #run
                })
            }
        }
    })
}

/// What a function takes.
struct Parameters<'a> {
    cx: bool,
    input: Option<&'a Type>,
}

impl Parameters<'_> {
    fn of(item: &ItemFn) -> syn::Result<Parameters<'_>> {
        let mut parameters = Parameters { cx: false, input: None };
        for argument in &item.sig.inputs {
            let FnArg::Typed(argument) = argument else {
                return Err(Error::new(argument.span(), "a function of Boki has no `self`"));
            };
            match &*argument.ty {
                Type::Reference(_) if !parameters.cx && parameters.input.is_none() => parameters.cx = true,
                Type::Reference(reference) => {
                    return Err(Error::new(
                        reference.span(),
                        "the input is taken by value; only `&Cx`, in front, is not",
                    ));
                }
                input if parameters.input.is_none() => parameters.input = Some(input),
                other => {
                    return Err(Error::new(
                        other.span(),
                        "a function of Boki has one input: make it a struct or tuple",
                    ));
                }
            }
        }
        Ok(parameters)
    }
}

/// `T` of `Result<T, ..>`.
fn output(returns: &ReturnType) -> syn::Result<&Type> {
    let expected = "a function of Boki returns a `Result`";
    let ReturnType::Type(_, returned) = returns else { return Err(Error::new(returns.span(), expected)) };
    if let Type::Path(path) = &**returned
        && let Some(last) = path.path.segments.last()
        && last.ident == "Result"
        && let PathArguments::AngleBracketed(arguments) = &last.arguments
        && let Some(GenericArgument::Type(output)) = arguments.args.first()
    {
        return Ok(output);
    }
    Err(Error::new(returned.span(), expected))
}

/// Whether that is a type's name.
fn is_called(of: &Type, name: &str) -> bool {
    matches!(of, Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == name))
}

fn first_line(attributes: &[Attribute]) -> String {
    for attribute in attributes {
        if let Meta::NameValue(meta) = &attribute.meta
            && meta.path.is_ident("doc")
            && let Expr::Lit(literal) = &meta.value
            && let Lit::Str(text) = &literal.lit
        {
            return text.value().trim().to_owned();
        }
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(item: TokenStream) -> String {
        expand(TokenStream::new(), item).unwrap_err().to_string()
    }

    #[test]
    fn a_function_becomes_a_value_with_its_name_and_description() {
        let expanded = expand(
            quote! { name = "hold-seat" },
            quote! {
                /// Holds a seat.
                ///
                /// More of it.
                pub(crate) async fn hold(cx: &Cx, input: Hold) -> Result<Seat> { todo() }
            },
        );
        let text = expanded.unwrap().to_string();
        assert!(text.contains("pub (crate) struct hold { }"), "{text}");
        assert!(text.contains("name : \"hold-seat\" . into ()"), "{text}");
        assert!(text.contains("description : \"Holds a seat.\" . into ()"), "{text}");
        assert!(text.contains("let input : Hold = input . json () ?"), "{text}");
        assert!(text.contains("hold :: call (& cx , input)"), "{text}");
    }

    #[test]
    fn bytes_are_raw() {
        let expanded = expand(quote! {}, quote! { async fn echo(input: Bytes) -> Result<boki::Bytes> { Ok(input) } });
        let text = expanded.unwrap().to_string();
        assert!(text.contains("input . into_bytes ()") && text.contains("Output :: bytes (output)"), "{text}");
        assert!(text.contains("echo :: call (input)"), "{text}");
    }

    #[test]
    fn streams_go_piece_by_piece() {
        let item = quote! { async fn f(input: InputStream) -> Result<boki::OutputStream> { x } };
        let text = expand(quote! {}, item).unwrap().to_string();
        assert!(text.contains("streams_input : true") && text.contains("input . into_stream ()"), "{text}");
        assert!(text.contains("Output :: from (output)"), "{text}");
    }

    #[test]
    fn http_is_a_request_and_a_response() {
        let item = quote! { async fn web(cx: &Cx, request: Request) -> Result<Response> { x } };
        let text = expand(quote! { http }, item.clone()).unwrap().to_string();
        assert!(text.contains("streams_input : true") && text.contains("Request :: of (input)"), "{text}");
        assert!(text.contains("Response :: output (result . map_err"), "{text}");
        // Without the word these are a function's own types.
        let text = expand(quote! {}, item).unwrap().to_string();
        assert!(text.contains("streams_input : false") && text.contains("Output :: json (& output)"), "{text}");
    }

    #[test]
    fn what_cannot_be_a_function_says_why() {
        assert!(refusal(quote! { fn f() -> Result<()> { Ok(()) } }).contains("async fn"));
        assert!(refusal(quote! { async fn f<T>() -> Result<T> { x } }).contains("generic"));
        assert!(refusal(quote! { async fn f() {} }).contains("returns a `Result`"));
        assert!(refusal(quote! { async fn f() -> u64 { 1 } }).contains("returns a `Result`"));
        assert!(refusal(quote! { async fn f(a: u64, b: u64) -> Result<()> { x } }).contains("one input"));
        assert!(refusal(quote! { async fn f(a: u64, cx: &Cx) -> Result<()> { x } }).contains("by value"));
        assert!(refusal(quote! { async fn f(self) -> Result<()> { x } }).contains("self"));
    }
}
