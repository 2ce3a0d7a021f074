//! What a macro may write and lints refuse in plain code: parentheses too many, bindings that are returned at once.

use syn::Block;
use syn::Expr;
use syn::ExprAssign;
use syn::FieldValue;
use syn::Local;
use syn::Pat;
use syn::Stmt;
use syn::visit_mut;
use syn::visit_mut::VisitMut;

/// Takes them away.
pub(super) struct Tidy;

impl VisitMut for Tidy {
    fn visit_block_mut(&mut self, block: &mut Block) {
        visit_mut::visit_block_mut(self, block);
        if let [.., Stmt::Local(local), Stmt::Expr(Expr::Path(tail), None)] = &block.stmts[..]
            && let Pat::Ident(name) = untyped(&local.pat)
            && let Some(init) = &local.init
            && tail.path.is_ident(&name.ident)
        {
            let value = (*init.expr).clone();
            block.stmts.truncate(block.stmts.len() - 2);
            block.stmts.push(Stmt::Expr(value, None));
        }
    }

    fn visit_expr_mut(&mut self, expr: &mut Expr) {
        visit_mut::visit_expr_mut(self, expr);
        match expr {
            Expr::Call(call) => call.args.iter_mut().for_each(unwrap),
            Expr::MethodCall(call) => call.args.iter_mut().for_each(unwrap),
            _ => {}
        }
        if let Expr::Block(block) = expr
            && let [Stmt::Expr(value, None)] = &block.block.stmts[..]
            && block.label.is_none()
            && block.attrs.is_empty()
        {
            *expr = value.clone();
        }
    }

    fn visit_local_mut(&mut self, local: &mut Local) {
        visit_mut::visit_local_mut(self, local);
        if let Some(init) = &mut local.init {
            unwrap(&mut init.expr);
        }
    }

    fn visit_expr_assign_mut(&mut self, assign: &mut ExprAssign) {
        visit_mut::visit_expr_assign_mut(self, assign);
        unwrap(&mut assign.right);
    }

    fn visit_field_value_mut(&mut self, field: &mut FieldValue) {
        visit_mut::visit_field_value_mut(self, field);
        unwrap(&mut field.expr);
    }
}

const fn untyped(pattern: &Pat) -> &Pat {
    match pattern {
        Pat::Type(typed) => &typed.pat,
        other => other,
    }
}

fn unwrap(expr: &mut Expr) {
    while let Expr::Paren(inner) = expr {
        *expr = (*inner.expr).clone();
    }
}
