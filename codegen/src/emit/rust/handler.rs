//! The module's side: raw operands of each leaf, a trait with one method a leaf, and a dispatcher.

use proc_macro2::TokenStream;
use quote::quote;

use super::Options;
use super::format::carrier;
use super::format::named_width;
use super::leaf::extract;
use super::leaf::flat_name;
use super::leaf::flat_type;
use super::leaf::is_typed;
use super::text::doc;
use super::text::ident;
use super::text::number;
use crate::emit::first_sentence;
use crate::model::Kind;
use crate::model::Leaf;
use crate::model::Part;
use crate::model::Side;
use crate::model::Spec;

/// `HostHandler`, `GuestHandler` and `SeamldrHandler` with their dispatchers, and the module `operands`.
pub fn handlers(spec: &Spec, options: &Options) -> TokenStream {
    let mut list: Vec<&Leaf> = spec.leaves.iter().filter(|leaf| is_typed(leaf)).collect();
    list.sort_by_key(|leaf| (leaf.side, leaf.number.value, leaf.variant.clone()));
    let operands = list
        .iter()
        .filter(|leaf| !leaf.inputs.is_empty())
        .map(|leaf| operands(spec, options, leaf));
    let sides = [
        (
            Side::Host,
            "HostHandler",
            "dispatch_seamcall",
            "SeamcallLeaf",
            "the TDX module for calls of the host",
        ),
        (
            Side::Guest,
            "GuestHandler",
            "dispatch_tdcall",
            "TdcallLeaf",
            "the TDX module for calls of the guest",
        ),
        (
            Side::Seamldr,
            "SeamldrHandler",
            "dispatch_seamldr",
            "SeamldrLeaf",
            "P-SEAMLDR",
        ),
    ];
    let sides = sides.map(|(side, name, dispatch, number_ty, what)| {
        let leaves: Vec<&&Leaf> = list.iter().filter(|leaf| leaf.side == side).collect();
        handler(options, &leaves, name, dispatch, number_ty, what)
    });
    quote! {
        /// Inputs of the leaves as the callee sees them: any value can be in any register.
        pub mod operands {
            #(#operands)*
        }

        #(#sides)*
    }
}

fn operands(spec: &Spec, options: &Options, leaf: &Leaf) -> TokenStream {
    let root = &options.root;
    let ty = flat_type(leaf);
    let text = format!(" Inputs of `{}`{}.", leaf.name, version_text(leaf));
    let parts: Vec<(&str, &Part)> = leaf
        .inputs
        .iter()
        .flat_map(|operand| {
            let parts = operand.meanings.iter().flat_map(|meaning| &meaning.parts);
            parts.map(|part| (operand.register, part))
        })
        .collect();
    let fields = parts.iter().map(|(register, part)| {
        let name = ident(&part.name);
        let ty = raw_type(spec, root, &part.kind, &quote!()).0;
        let register = register.to_uppercase();
        let text = part.doc.as_deref().map_or_else(
            || format!(" {register}."),
            |text| format!(" {register}:{}", doc(text)),
        );
        quote!(#[doc = #text] pub #name: #ty,)
    });
    let values = parts.iter().map(|(register, part)| {
        let (name, register) = (ident(&part.name), ident(register));
        let raw = extract(&part.kind, part.bits, quote!(registers.#register));
        let (_, value) = raw_type(spec, root, &part.kind, &raw);
        quote!(#name: #value,)
    });
    quote! {
        #[doc = #text]
        #[derive(Clone, Copy, Debug)]
        pub struct #ty {
            #(#fields)*
        }

        impl #ty {
            /// The inputs in `registers`.
            #[inline]
            pub const fn new(registers: &#root::Registers) -> Self {
                Self { #(#values)* }
            }
        }
    }
}

fn version_text(leaf: &Leaf) -> String {
    match leaf.versions.as_slice() {
        [0] | [] => String::new(),
        [version, ..] => format!(" version {version}"),
    }
}

/// A type that holds any bits, and how it is made of the `u64` that is `raw`.
fn raw_type(
    spec: &Spec,
    root: &TokenStream,
    kind: &Kind,
    raw: &TokenStream,
) -> (TokenStream, TokenStream) {
    match kind {
        Kind::Number(_) | Kind::Hkid | Kind::Unknown => (quote!(u64), quote!(#raw)),
        Kind::Bool => (quote!(bool), quote!(#raw != 0)),
        Kind::Hpa { .. }
        | Kind::Tdr
        | Kind::Tdvpr
        | Kind::Page { .. }
        | Kind::Structure { guest: false, .. } => {
            (quote!(#root::Hpa), quote!(#root::Hpa::new(#raw)))
        }
        Kind::Gpa { .. }
        | Kind::PrivateGpa { .. }
        | Kind::SharedGpa { .. }
        | Kind::Structure { .. } => (quote!(#root::Gpa), quote!(#root::Gpa::new(#raw))),
        Kind::FieldId => (
            quote!(#root::field::FieldId),
            quote!(#root::field::FieldId::from_bits(#raw)),
        ),
        Kind::Mapping { .. } => (
            quote!(#root::format::GpaMapping),
            quote!(#root::format::GpaMapping::from_bits(#raw)),
        ),
        Kind::Format(format) => match named_width(spec, format) {
            Some(width) if width > 32 => {
                let ty = ident(format);
                (
                    quote!(#root::format::#ty),
                    quote!(#root::format::#ty::from_bits(#raw)),
                )
            }
            Some(width) => {
                let (ty, carrier) = (ident(format), carrier(width));
                (
                    quote!(#root::format::#ty),
                    quote!(#root::format::#ty::from_bits(#raw as #carrier)),
                )
            }
            None => (quote!(u64), quote!(#raw)),
        },
    }
}

fn handler(
    options: &Options,
    leaves: &[&&Leaf],
    name: &str,
    dispatch: &str,
    number_ty: &str,
    what: &str,
) -> TokenStream {
    let root = &options.root;
    let (name, dispatch, number_ty) = (ident(name), ident(dispatch), ident(number_ty));
    let text = format!(" Whoever implements {what}.");
    let methods = leaves.iter().map(|leaf| {
        let method = ident(&flat_name(leaf));
        let text = format!(" `{}`{}:{}", leaf.name, version_text(leaf), doc(first_sentence(&leaf.doc)));
        let constant = super::text::constant(&leaf.name);
        let parameter = if leaf.inputs.is_empty() {
            quote!()
        } else {
            let ty = flat_type(leaf);
            quote!(_: operands::#ty,)
        };
        quote! {
            #[doc = #text]
            fn #method(&self, context: &mut C, #parameter registers: &mut #root::Registers) -> Self::Outcome {
                self.unsupported(context, #root::leaf::#number_ty::#constant, registers)
            }
        }
    });
    let mut arms: Vec<TokenStream> = Vec::new();
    for leaf in leaves {
        let method = ident(&flat_name(leaf));
        let value = number(leaf.number.value);
        let versions = leaf
            .versions
            .iter()
            .map(|version| number(u64::from(*version)));
        let call = if leaf.inputs.is_empty() {
            quote!(handler.#method(context, registers))
        } else {
            let ty = flat_type(leaf);
            quote!(handler.#method(context, operands::#ty::new(registers), registers))
        };
        let guard = if leaf.contested || leaf.variant.is_some() {
            // Several operand lists have this number and version: the one that the module has.
            let bits = super::text::hex(u64::from(leaf.modules.0));
            quote!(if #root::module::Modules::from_bits(#bits).contains(handler.module()))
        } else {
            quote!()
        };
        let arm = quote!((#value, #(#versions)|*) #guard => #call,);
        // Variants for some modules go before the operand list that all others have.
        if leaf.variant.is_some() {
            arms.insert(0, arm)
        } else {
            arms.push(arm)
        }
    }
    let dispatch_text =
        format!(" Calls the method of `handler` that `registers` ask for, as {what} would.");
    quote! {
        #[doc = #text]
        ///
        /// `C` is what a call needs beside the implementer, such as the state of the calling processor. A method finds its
        /// inputs decoded and raw; it writes its outputs to `registers`, and returns what RAX will hold. A method
        /// that is not implemented refuses its leaf.
        pub trait #name<C: ?Sized> {
            /// What a call came to: at least a status.
            type Outcome: From<#root::Status>;

            /// The module that is implemented; it decides about leaves and versions.
            fn module(&self) -> #root::Module;

            /// What a leaf answers that is not there.
            fn unsupported(&self, context: &mut C, leaf: #root::leaf::#number_ty, registers: &mut #root::Registers) -> Self::Outcome {
                let _ = (context, leaf, registers);
                #root::Status::with_operand(#root::StatusCode::OPERAND_INVALID, #root::OperandId::RAX).into()
            }

            #(#methods)*
        }

        #[doc = #dispatch_text]
        ///
        /// A leaf or version that the module lacks, or a reserved bit in RAX, is refused by
        #[doc = concat!("[`", stringify!(#name), "::unsupported`].")]
        /// RAX is left to the caller: the outcome need not be a return.
        pub fn #dispatch<C: ?Sized, H: #name<C> + ?Sized>(handler: &H, context: &mut C, registers: &mut #root::Registers) -> H::Outcome {
            let rax = #root::format::LeafAndVersion::from_bits(registers.rax & !(#root::SEAMLDR_CALL));
            let leaf = #root::leaf::#number_ty::new(rax.leaf());
            let accepted = match leaf.row() {
                Some(row) => row.answers(handler.module(), rax.version()),
                None => false,
            };
            if !rax.is_reserved_valid() || !accepted {
                return handler.unsupported(context, leaf, registers);
            }
            match (rax.leaf(), rax.version()) {
                #(#arms)*
                _ => handler.unsupported(context, leaf, registers),
            }
        }
    }
}
