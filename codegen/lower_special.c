/* lower_special.c: the bodies of loop kernels whose core is a cumsum, scatter_add or dynamic_update_slice. Each runs over the axes
 * that are independent (P) as other loop kernels do; along its own axis it goes in order.
 *
 *     cumsum:       acc = 0; for i { acc += x[i]; store y[i] = acc }
 *     scatter_add:  for i { store y[i] = x[i] }  for i { store y[at[i]] += src[i], where at[i] is inside }
 *     dynamic_update_slice, over the memory of its argument: store y[start + i] = u[i]; else y is pulled like any row */
#include "lower_loop.h"

static lp_ref pull(loop_nest *ln, ir_ref r) { return lower_pull(ln->lx, r, ln->at); }

static void scatter_index(loop_nest *ln, const ir_node *n, lp_ref place, lp_ref *index) {
  for (int i = 0; i < n->rank; i++) index[i] = i == (int)ir_int(n, "axis") ? place : ln->at[i];
}

static lp_ref scatter_place(loop_nest *ln, const ir_node *n) { return nest_cast(ln, pull(ln, n->args[1]), TT_I64); }

static void update_index(loop_nest *ln, lp_ref *index) {
  for (int i = 0; i < ln->space.rank; i++) index[i] = ln->at[i];
  if (ln->in_place) lower_update_index(ln->lx, ln->core, ln->at, index);
}

void nest_special_roots(loop_nest *ln, lp_ref *roots, int *n_roots, lp_ref *stores, int *n_stores) {
  const ir_node *n = ir_at(ln->g, ln->core);
  lp_ref index[TT_MAX_RANK];
  *n_roots = *n_stores = 1;
  switch (n->op) {
  case IR_cumsum:
    roots[0] = pull(ln, n->args[0]);
    stores[0] = lower_linear(ln->lx, ln->core, ln->at);
    break;
  case IR_scatter_add:
    roots[0] = scatter_place(ln, n);
    roots[1] = pull(ln, n->args[2]);
    scatter_index(ln, n, lp_int(ln->k, 0), index);
    roots[2] = lower_pull(ln->lx, n->args[0], index);
    *n_roots = 3;
    stores[0] = lower_linear(ln->lx, ln->core, index);
    break;
  default:
    update_index(ln, index);
    roots[0] = ln->in_place ? pull(ln, n->args[1]) : pull(ln, ln->core);
    stores[0] = lower_linear(ln->lx, ln->core, index);
  }
}

static void cumsum(loop_nest *ln, lp_cursor *at, const ir_node *n) {
  lp_kernel *k = ln->k;
  int axis = (int)ir_int(n, "axis");
  tt_dtype acc_type = nest_acc_type(n->dtype);
  bool exclusive = ir_int(n, "exclusive");
  nest_open_vector(ln, at);
  int acc = nest_local(ln, at, "acc", acc_type, lp_const(k, acc_type, 0));
  nest_open_reduced(ln, at);
  if (ir_int(n, "reversed")) ln->at[axis] = lp_add(k, lp_mul(k, ln->at[axis], -1), lp_int(k, n->dim[axis] - 1));
  int term = nest_local(ln, at, "term", acc_type, nest_cast(ln, pull(ln, n->args[0]), acc_type));
  for (int i = 0; i < 2; i++) {
    if (i == exclusive) {
      lp_stmt *s = lp_append(k, at, LS_SET);
      s->local = acc, s->value = lp_op(k, IR_add, acc_type, lp_get(k, acc, 0), lp_get(k, term, 0), 0);
    } else {
      nest_store(ln, at, ln->core, ln->at, nest_cast(ln, lp_get(k, acc, 0), n->dtype));
    }
  }
}

/* A loop along the core's axis outside, the vector loop inside, so that whole lines of the result are written. */
static void open_line(loop_nest *ln, lp_cursor *at, int axis, int64_t extent) {
  int var = lp_var_add(ln->k, "i", extent);
  lp_for(ln->k, at, var, 0, extent, 0, at);
  ln->at[axis] = lp_var(ln->k, var);
  nest_open_vector(ln, at);
}

static void scatter_add(loop_nest *ln, lp_cursor *outside, const ir_node *n) {
  lp_kernel *k = ln->k;
  int axis = (int)ir_int(n, "axis");
  lp_ref index[TT_MAX_RANK], zero = lp_int(k, 0);
  tt_dtype acc_type = nest_acc_type(n->dtype);
  if (!ln->in_place && n->dim[axis] > 0) {
    lp_cursor at = *outside;
    open_line(ln, &at, axis, n->dim[axis]);
    nest_store(ln, &at, ln->core, ln->at, pull(ln, n->args[0]));
    nest_close(outside);
  }
  int64_t length = ln->space.dim[axis];
  if (length == 0 || n->dim[axis] == 0) return;
  lp_cursor at = *outside;
  open_line(ln, &at, axis, length);
  lp_ref place = scatter_place(ln, n);
  lp_ref guard = lp_op(k, IR_and, TT_BOOL, lp_op(k, IR_ge, TT_BOOL, place, zero, 0), lp_op(k, IR_lt, TT_BOOL, place, lp_int(k, n->dim[axis]), 0), 0);
  scatter_index(ln, n, place, index);
  lp_stmt *s = nest_store(ln, &at, ln->core, index, zero);
  lp_ref old = lp_load(k, s->buffer, s->index, guard, 0), add = pull(ln, n->args[2]);
  s->guard = guard;
  s->value = nest_cast(ln, lp_op(k, IR_add, acc_type, nest_cast(ln, old, acc_type), nest_cast(ln, add, acc_type), 0), n->dtype);
}

void nest_body_special(loop_nest *ln, lp_cursor *outside) {
  const ir_node *n = ir_at(ln->g, ln->core);
  lp_cursor at = *outside;
  if (n->op == IR_scatter_add) {
    scatter_add(ln, &at, n);
  } else if (n->op == IR_cumsum) {
    if (n->dim[ir_int(n, "axis")] > 0) cumsum(ln, &at, n);
  } else {
    lp_ref index[TT_MAX_RANK];
    nest_open_vector(ln, &at);
    update_index(ln, index);
    nest_store(ln, &at, ln->core, index, ln->in_place ? pull(ln, n->args[1]) : pull(ln, ln->core));
  }
}
