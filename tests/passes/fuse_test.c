/* fuse_test.c: what comes out of fuse and schedule is what codegen is promised (the kernel form, checked here by walking every index of
 * small kernels, not by the rules that fuse itself uses), computes the same bits, and has the expected number of kernels. */
#include "tests/passes/check.h"

/* ---- the kernel form, index by index ---- */

typedef struct {
  const ir_graph *g;
  uint32_t region;
  int64_t space[TT_MAX_RANK], at[TT_MAX_RANK];     /* S, and where in it we are; -1: a reduced axis, outside of its loop */
  int n_space, p[TT_MAX_RANK], n_p;
  ir_ref core;
  int64_t seen[TT_MAX_RANK];                        /* index at which the contraction was read */
  int n_seen;
} checker;

static bool inside(const checker *c, ir_ref r) { return ir_at(c->g, r)->region == c->region; }
static bool is_reduction(const ir_node *n) { return ir_ops[n->op].kind == IR_REDUCTION && n->op != IR_cumsum; }

static void unflatten(tt_shape s, int64_t flat, int64_t *index) {
  for (int i = s.rank - 1; i >= 0; i--) index[i] = flat % s.dim[i], flat /= s.dim[i];
}
static int64_t flatten(tt_shape s, const int64_t *index) {
  int64_t flat = 0;
  for (int i = 0; i < s.rank; i++) flat = flat * s.dim[i] + index[i];
  return flat;
}

/* Index of argument k that a movement row reads at `index`; false: nothing is read there. */
static bool move(const ir_graph *g, ir_ref r, uint32_t k, const int64_t *index, int64_t *to) {
  const ir_node *n = ir_at(g, r), *a = ir_at(g, n->args[k]);
  int count;
  memcpy(to, index, sizeof(int64_t) * TT_MAX_RANK);
  switch (n->op) {
  case IR_reshape: unflatten(ir_shape(g, n->args[0]), flatten(ir_shape(g, r), index), to); return true;
  case IR_permute: for (int i = 0; i < n->rank; i++) to[ir_ints(n, "perm", &count)[i]] = index[i]; return true;
  case IR_broadcast: for (int i = 0; i < a->rank; i++) to[i] = a->dim[i] == 1 ? 0 : index[ir_ints(n, "dims", &count)[i]]; return true;
  case IR_slice: for (int i = 0; i < n->rank; i++) to[i] = ir_ints(n, "start", &count)[i] + index[i] * ir_ints(n, "step", &count)[i]; return true;
  case IR_pad:
    for (int i = 0; k == 0 && i < n->rank; i++) {
      int64_t x = index[i] - ir_ints(n, "lo", &count)[i], step = ir_ints(n, "interior", &count)[i] + 1;
      if (x < 0 || x % step || x / step >= a->dim[i]) return false;
      to[i] = x / step;
    }
    return true;
  case IR_concat: {
    int axis = (int)ir_int(n, "axis");
    int64_t before = 0;
    for (uint32_t j = 0; j < k; j++) before += ir_at(g, n->args[j])->dim[axis];
    to[axis] -= before;
    return to[axis] >= 0 && to[axis] < a->dim[axis];
  }
  case IR_reverse: {
    const int64_t *axes = ir_ints(n, "axes", &count);
    for (int i = 0; i < count; i++) to[axes[i]] = a->dim[axes[i]] - 1 - index[axes[i]];
    return true;
  }
  case IR_unfold: to[ir_int(n, "axis")] = index[ir_int(n, "axis")] * ir_int(n, "stride") + index[n->rank - 1] * ir_int(n, "dilation"); return true;
  default: break;
  }
  cr_assert_fail("%s is no movement", ir_ops[n->op].name);
  return false;
}

/* Row r is wanted at index (NULL: somewhere, of a fold). Where data decide along an axis: at its first place and at its last. */
static void pull(checker *c, ir_ref r, const int64_t *index) {
  if (!inside(c, r)) return;
  const ir_node *n = ir_at(c->g, r);
  int64_t to[TT_MAX_RANK];
  if (r == c->core && (n->op == IR_matmul || n->op == IR_conv)) {
    cr_assert(index, "a contraction is read by a fold");
    cr_assert(!c->n_seen || !memcmp(c->seen, index, sizeof(int64_t) * n->rank), "a result needs two elements of its contraction");
    memcpy(c->seen, index, sizeof(int64_t) * n->rank), c->n_seen = 1;
    return;
  }
  if (is_reduction(n) || n->op == IR_fold) {
    cr_assert(index, "a reduction is read by a fold");
    cr_assert_eq(n->rank, c->n_p);
    for (int i = 0; i < n->rank; i++) cr_assert_eq(index[i], c->at[c->p[i]], "%s is read at another index than its own", ir_ops[n->op].name);
    return;
  }
  cr_assert(r != c->core, "%s is read in its own kernel", ir_ops[n->op].name);
  for (uint32_t k = 0; k < n->n_args; k++) {
    bool same = ir_ops[n->op].kind == IR_ELEMENTWISE || (n->op == IR_gather && k == 1);
    if (same) pull(c, n->args[k], index);
    else if (n->op == IR_random || (n->op == IR_pad && k == 1)) pull(c, n->args[k], (int64_t[TT_MAX_RANK]){0});
    else if (!index) pull(c, n->args[k], NULL);
    else if (n->op == IR_dynamic_slice && k == 1) {
      for (int64_t i = 0; i < n->rank; i++) pull(c, n->args[k], &i);
    } else if (n->op == IR_gather || n->op == IR_dynamic_slice) {
      const ir_node *a = ir_at(c->g, n->args[k]);
      memcpy(to, index, sizeof to);
      for (int last = 0; last < 2; last++) {
        for (int i = 0; i < n->rank; i++) {
          if (n->op == IR_gather && i == ir_int(n, "axis")) to[i] = last ? a->dim[i] - 1 : 0;
          if (n->op == IR_dynamic_slice) to[i] = index[i] + (last ? a->dim[i] - n->dim[i] : 0);
        }
        pull(c, n->args[k], to);
      }
    } else if (move(c->g, r, k, index, to)) pull(c, n->args[k], to);
  }
}

static bool each(int64_t *at, const int64_t *dim, const int *axes, int n) {      /* counts at[axes] on */
  for (int i = n - 1; i >= 0; i--) {
    if (++at[axes[i]] < dim[axes[i]]) return true;
    at[axes[i]] = 0;
  }
  return false;
}

/* The index of a row of S's or P's shape, dimensions of 1 aside. */
static bool own_index(const checker *c, ir_ref r, const int *axes, int n, int64_t *index) {
  const ir_node *x = ir_at(c->g, r);
  int k = 0;
  for (int i = 0; i < x->rank; i++) {
    index[i] = 0;
    if (x->dim[i] == 1) continue;
    while (k < n && c->space[axes[k]] == 1) k++;
    if (k == n || c->space[axes[k]] != x->dim[i]) return false;
    index[i] = c->at[axes[k++]];
  }
  while (k < n && c->space[axes[k]] == 1) k++;
  return k == n;
}

static void check_loop(checker *c, const bool *used) {
  const ir_graph *g = c->g;
  uint32_t n_space, n_reduce;
  const int64_t *space = ir_kernel_get(g, c->region, "space", &n_space), *reduce = ir_kernel_get(g, c->region, "reduce", &n_reduce);
  const char *name = g->kernels[c->region].name;
  int all[TT_MAX_RANK], r_axes[TT_MAX_RANK], n_r = 0;
  c->n_space = (int)n_space;
  for (int i = 0; i < c->n_space; i++) {
    bool summed = false;
    for (uint32_t k = 0; k < n_reduce; k++) summed |= reduce[k] == i;
    all[i] = i, c->space[i] = space[i];
    if (summed) r_axes[n_r++] = i;
    else c->p[c->n_p++] = i;
  }
  cr_assert_eq(n_r, (int)n_reduce, "%s: reduce is not a set of axes", name);
  for (ir_ref r = 1; r < g->n_nodes; r++) {
    if (!inside(c, r)) continue;
    const ir_node *n = ir_at(g, r);
    if (n->op == IR_cumsum || n->op == IR_scatter_add || n->op == IR_dynamic_update_slice) c->core = r;
    if (!is_reduction(n)) continue;
    const ir_node *a = ir_at(g, n->args[0]);
    cr_assert_eq(a->rank, c->n_space, "%s: a reduction of another space", name);
    for (int i = 0; i < a->rank; i++) cr_assert_eq(a->dim[i], c->space[i], "%s: a reduction of another space", name);
    int count = 1;
    bool arg = n->op == IR_argmax || n->op == IR_argmin;
    if (!arg) ir_ints(n, "axes", &count);
    cr_assert_eq(count, n_r, "%s: a reduction of other axes", name);
    for (int i = 0; i < count; i++) cr_assert_eq(arg ? ir_int(n, "axis") : ir_ints(n, "axes", &count)[i], r_axes[i], "%s: a reduction of other axes", name);
  }
  for (ir_ref r = 1; r < g->n_nodes; r++) {
    if (!inside(c, r)) continue;
    const ir_node *n = ir_at(g, r);
    if (c->core) cr_assert_eq(used[r], r == c->core, "%s: %s is the only result of its kernel", name, ir_ops[ir_at(g, c->core)->op].name);
    if (r == c->core) continue;
    bool fold = n->op == IR_fold, summed = is_reduction(n);
    int64_t index[TT_MAX_RANK] = {0};
    memset(c->at, 0, sizeof c->at);
    bool in_p = own_index(c, r, c->p, c->n_p, index), in_s = !in_p && own_index(c, r, all, c->n_space, index);
    if (used[r]) cr_assert(in_p || in_s, "%s: result %s fits neither S nor P", name, ir_ops[n->op].name);
    if (!used[r] && !summed && !fold) continue;
    tt_shape s = {.rank = c->n_space};
    memcpy(s.dim, c->space, sizeof s.dim);
    if (tt_shape_count(&s) == 0) continue;
    do {
      if (summed) pull(c, n->args[0], c->at);
      else if (fold) pull(c, n->args[0], NULL);
      else {
        own_index(c, r, in_p ? c->p : all, in_p ? c->n_p : c->n_space, index);
        pull(c, r, index);
      }
    } while (each(c->at, c->space, summed || in_s ? all : c->p, summed || in_s ? c->n_space : c->n_p));
  }
}

/* An operand's address, in elements of the row behind its views, or -1 where it is no view of one. */
static int64_t address(checker *c, ir_ref r, const int64_t *index) {
  int64_t to[TT_MAX_RANK];
  if (!inside(c, r)) return flatten(ir_shape(c->g, r), index);
  const ir_node *n = ir_at(c->g, r);
  int op = n->op;
  pass_window w;
  if (op == IR_pad && pass_window_of(c->g, c->core, &w) && w.pad == r) {       /* its kernel leaves the border out: what the border's place would be */
    int64_t zero[TT_MAX_RANK] = {0}, base = address(c, n->args[0], zero), at = base;
    for (int i = 0; i < n->rank; i++) {
      if (ir_at(c->g, n->args[0])->dim[i] == 1) continue;
      zero[i] = 1, at += (index[i] - ir_ints(n, "lo", NULL)[i]) * (address(c, n->args[0], zero) - base), zero[i] = 0;
    }
    return at;
  }
  cr_assert(op == IR_permute || op == IR_reshape || op == IR_broadcast || op == IR_slice || op == IR_reverse, "an operand of a contraction is read through %s", ir_ops[op].name);
  cr_assert(move(c->g, r, 0, index, to));
  return address(c, ir_at(c->g, r)->args[0], to);
}

static void check_strides(checker *c, ir_ref r, const char *name) {
  tt_shape s = ir_shape(c->g, r);
  int64_t index[TT_MAX_RANK] = {0}, base = tt_shape_count(&s) ? address(c, r, index) : 0, stride[TT_MAX_RANK] = {0};
  for (int i = 0; i < s.rank; i++)
    if (s.dim[i] > 1) index[i] = 1, stride[i] = address(c, r, index) - base, index[i] = 0;
  for (int64_t flat = 0; flat < tt_shape_count(&s); flat++) {
    unflatten(s, flat, index);
    int64_t want = base;
    for (int i = 0; i < s.rank; i++) want += stride[i] * index[i];
    cr_assert_eq(address(c, r, index), want, "%s: an operand has no strides", name);
  }
}

static void check_contract(checker *c, const bool *used) {
  const ir_graph *g = c->g;
  const char *name = g->kernels[c->region].name;
  for (ir_ref r = 1; r < g->n_nodes; r++)
    if (inside(c, r) && (ir_at(g, r)->op == IR_matmul || ir_at(g, r)->op == IR_conv)) {
      cr_assert(!c->core, "%s: two contractions", name);
      c->core = r;
    }
  pass_window w;
  if (!pass_window_of(g, c->core, &w) || (w.pad && !inside(c, w.pad))) w.pad = 0;
  for (int k = 0; k < 2; k++) check_strides(c, ir_at(g, c->core)->args[k], name);
  if (w.pad) check_strides(c, ir_at(g, w.pad)->args[0], name);
  tt_shape s = ir_shape(g, c->core);
  bool *hit = calloc((size_t)tt_shape_count(&s) + 1, 1);
  for (ir_ref r = 1; r < g->n_nodes; r++) {
    if (!inside(c, r)) continue;
    const ir_node *n = ir_at(g, r);
    cr_assert(!is_reduction(n) && n->op != IR_fold && n->op != IR_cumsum && n->op != IR_concat && (n->op != IR_pad || r == w.pad), "%s: %s beside a contraction", name, ir_ops[n->op].name);
    if (!used[r]) continue;
    tt_shape t = ir_shape(g, r);
    cr_assert_eq(tt_shape_count(&s), tt_shape_count(&t), "%s: a result of another size", name);
    memset(hit, 0, (size_t)tt_shape_count(&s));
    for (int64_t flat = 0; flat < tt_shape_count(&t); flat++) {
      int64_t index[TT_MAX_RANK];
      unflatten(t, flat, index);
      c->n_seen = 0;
      pull(c, r, index);
      cr_assert(c->n_seen, "%s: a result does not need the contraction", name);
      int64_t at = flatten(s, c->seen);
      cr_assert(!hit[at], "%s: an element of the contraction is needed twice", name);
      hit[at] = true;
    }
  }
  free(hit);
}

static void check_form(const ir_graph *g) {
  bool *used = calloc(g->n_nodes, sizeof *used);
  for (ir_ref r = 1; r < g->n_nodes; r++)
    for (uint32_t k = 0; k < ir_at(g, r)->n_args; k++) {
      ir_ref a = ir_at(g, r)->args[k];
      if (ir_at(g, a)->region != ir_at(g, r)->region) used[a] = true;
    }
  for (uint32_t i = 0; i < g->n_outputs; i++) used[g->outputs[i].value] = true;
  for (ir_ref r = 1; r < g->n_nodes; r++) {
    const ir_node *n = ir_at(g, r);
    bool leaf = n->op == IR_input || n->op == IR_param || n->op == IR_assign || n->op == IR_const;
    cr_assert(n->region || leaf, "%s is in no kernel", ir_ops[n->op].name);
  }
  for (uint32_t k = 1; k < g->n_kernels; k++) {
    checker c = {.g = g, .region = k};
    const int64_t *kind = ir_kernel_get(g, k, "kind", NULL);
    cr_assert(kind, "kernel @%s has no kind", g->kernels[k].name);
    bool makes = false;
    for (ir_ref r = 1; r < g->n_nodes; r++) makes |= used[r] && ir_at(g, r)->region == k;
    cr_assert(makes, "kernel @%s makes nothing", g->kernels[k].name);
    if (*kind == 0) check_loop(&c, used);
    else if (*kind == 1) check_contract(&c, used);
  }
  free(used);
}

/* ---- graphs ---- */

static pass_options training(const char *optimizer) {
  pass_options o = options_of_test;
  o.train = true, o.optimizer = optimizer, o.hyper = "";
  return o;
}

/* Through the pipeline; fuse and schedule keep the bits of what layout gave, layout keeps numbers. Takes g. Returns the number of kernels. */
static int check_net(ir_graph *g, const pass_options *o) {
  ir_graph *before = passes(g, "simplify,grad,update,decompose,tidy", o), *laid = passes(before, "layout", o);
  ir_graph *fused = passes(laid, "fuse,schedule,memory", o), *alone = passes(laid, "schedule,memory", o);
  check_form(fused);
  check_form(alone);
  expect_same(before, laid, 3e-5, "layout");
  expect_same(laid, fused, 0, "fuse");
  expect_same(laid, alone, 0, "schedule");
  int n = (int)fused->n_kernels - 1;
  cr_expect_lt(fused->n_kernels, alone->n_kernels);
  ir_graph_free(g), ir_graph_free(before), ir_graph_free(laid), ir_graph_free(fused), ir_graph_free(alone);
  return n;
}

/* Three products with bias and relu; softmax, its gradient and the loss (2); two products for gradients of activations, with relu's; three
 * for gradients of weights, with their updates; two for those of the biases (the two of one shape share one). */
Test(fuse, mlp_training_step) {
  pass_options o = training("sgd");
  cr_expect_eq(check_net(mlp(8, 12, 16, 10), &o), 12);
  o = training("adam");
  cr_expect_leq(check_net(mlp(8, 12, 16, 10), &o), 14);
}
Test(fuse, cnn_training_step) {
  pass_options o = training("sgd");
  cr_expect_leq(check_net(cnn(2, 8, 4, false), &o), 29);
  cr_expect_leq(check_net(cnn(2, 9, 4, true), &o), 31);
}
Test(fuse, transformer_training_step) {
  pass_options o = training("adamw");
  cr_expect_leq(check_net(transformer(2, 6, 8, 2), &o), 35);
}
Test(fuse, inference) {
  pass_options o = options_of_test;
  cr_expect_eq(check_net(mlp(4, 6, 8, 3), &o), 5);
  cr_expect_leq(check_net(cnn(2, 8, 4, false), &o), 12);
}

typedef ir_ref small_net(ir_graph *g, ir_ref x);
static ir_ref softmax(ir_graph *g, ir_ref x) { return ir_softmax(g, IR_softmax, x, 1); }
static ir_ref log_softmax(ir_graph *g, ir_ref x) { return ir_softmax(g, IR_log_softmax, x, 1); }
static ir_ref column_softmax(ir_graph *g, ir_ref x) { return ir_softmax(g, IR_softmax, x, 0); }
static ir_ref layer_norm(ir_graph *g, ir_ref x) {
  int64_t n = ir_at(g, x)->dim[1];
  return ir_layer_norm(g, x, ir_param(g, "w", TT_F32, S(n), true), ir_param(g, "b", TT_F32, S(n), true), 1, 1e-5);
}
static ir_ref chain(ir_graph *g, ir_ref x) { return ir_gelu(g, ir_ew2(g, IR_add, ir_ew1(g, IR_exp, x), ir_silu(g, x)), false); }
static ir_ref padded(ir_graph *g, ir_ref x) { return ir_pad(g, ir_ew1(g, IR_exp, x), ir_like(g, x, 0), (int64_t[]){1, 1}, (int64_t[]){1, 1}, NULL); }
static ir_ref transposed(ir_graph *g, ir_ref x) { return ir_ew1(g, IR_exp, ir_transpose(g, ir_ew1(g, IR_sin, x), 0, 1)); }
static ir_ref normalized_rows(ir_graph *g, ir_ref x) {
  return ir_ew2(g, IR_div, x, ir_ew1(g, IR_sqrt, ir_reduce(g, IR_sum, ir_ew2(g, IR_mul, x, x), (int[]){1}, 1, true)));
}
static ir_ref residual(ir_graph *g, ir_ref x) { return ir_ew2(g, IR_add, x, ir_ew1(g, IR_relu, linear(g, x, "fc", ir_at(g, x)->dim[1]))); }

Test(fuse, one_kernel_each) {
  static const struct { const char *name; small_net *net; } nets[] = {
      {"softmax", softmax}, {"log_softmax", log_softmax}, {"column_softmax", column_softmax}, {"layer_norm", layer_norm}, {"chain", chain},
      {"padded", padded}, {"transposed", transposed}, {"normalized_rows", normalized_rows}, {"residual", residual}};
  for (size_t i = 0; i < sizeof nets / sizeof *nets; i++) {
    ir_graph *g = ir_graph_new(nets[i].name);
    ir_output_add(g, "y", nets[i].net(g, ir_input(g, "x", TT_F32, S(6, 7))));
    pass_options o = options_of_test;
    ir_graph *before = passes(g, "decompose,tidy", &o), *after = passes(before, "fuse,schedule,memory", &o);
    cr_expect_eq(after->n_kernels - 1, 1, "%s: %u kernels", nets[i].name, after->n_kernels - 1);
    cr_expect_eq(after->arena_bytes, 0);
    check_form(after);
    expect_same(before, after, 0, nets[i].name);
    ir_graph_free(g), ir_graph_free(before), ir_graph_free(after);
  }
}

static int kernels_of(ir_graph *g) {
  pass_options o = options_of_test;
  ir_graph *d = passes(g, "decompose,tidy", &o), *f = passes(d, "fuse,schedule", &o);
  int n = (int)f->n_kernels - 1;
  check_form(f);
  expect_same(d, f, 0, "fuse");
  ir_graph_free(g), ir_graph_free(d), ir_graph_free(f);
  return n;
}

/* What is costly is computed once: not in each of two readers, and not for every element of a larger value. */
Test(fuse, costly_values_are_kept) {
  ir_graph *g = ir_graph_new("windows");
  ir_ref e = ir_ew1(g, IR_exp, ir_input(g, "x", TT_F32, S(2000)));
  ir_output_add(g, "y", ir_reduce(g, IR_sum, ir_unfold(g, e, 0, 9, 1, 1), (int[]){1}, 1, false));
  cr_expect_eq(kernels_of(g), 2);

  g = ir_graph_new("rows");
  e = ir_ew1(g, IR_exp, ir_ew1(g, IR_tanh, ir_input(g, "x", TT_F32, S(1, 64))));
  ir_output_add(g, "y", ir_ew2(g, IR_mul, e, ir_input(g, "z", TT_F32, S(64, 64))));
  cr_expect_eq(kernels_of(g), 2);

  g = ir_graph_new("product");
  e = ir_ew1(g, IR_exp, ir_input(g, "x", TT_F32, S(8, 8)));
  ir_output_add(g, "y", ir_matmul(g, e, e, false, true, 1));
  cr_expect_eq(kernels_of(g), 2);
}

/* Two kernels that would wait for each other stay apart: the sum needs all of e, and y needs the sum and e. */
Test(fuse, no_cycles) {
  ir_graph *g = ir_graph_new("cycle");
  ir_ref x = ir_input(g, "x", TT_F32, S(5, 6)), e = ir_ew1(g, IR_exp, x);
  ir_ref m = ir_matmul(g, e, ir_input(g, "w", TT_F32, S(6, 6)), false, false, 1);
  ir_output_add(g, "y", ir_ew2(g, IR_add, ir_ew1(g, IR_sin, e), ir_reduce(g, IR_sum, m, (int[]){0}, 1, true)));
  cr_expect_eq(kernels_of(g), 3);
}

/* Outputs and next values that nothing computes, or two of one value, get a kernel that copies them; swapped params too. */
Test(fuse, values_that_nothing_computes) {
  ir_graph *g = ir_graph_new("copies");
  ir_ref x = ir_input(g, "x", TT_F32, S(3)), p = ir_param(g, "p", TT_F32, S(3), true), q = ir_param(g, "q", TT_F32, S(3), true), s = ir_param(g, "s", TT_F32, S(3), true);
  ir_ref y = ir_ew1(g, IR_exp, x);
  ir_assign(g, p, q), ir_assign(g, q, p), ir_assign(g, s, y);
  ir_output_add(g, "x", x), ir_output_add(g, "y", y), ir_output_add(g, "again", y), ir_output_add(g, "seven", ir_full(g, TT_F32, S(2, 2), 7));
  ir_output_add(g, "two", ir_scalar(g, TT_F64, 2)), ir_output_add(g, "count", ir_iota(g, TT_I32, S(4), 0)), ir_output_add(g, "p", p);
  pass_options o = options_of_test;
  for (int fuse = 0; fuse < 2; fuse++) {
    ir_graph *f = passes(g, fuse ? "fuse,schedule,memory" : "schedule,memory", &o);
    check_form(f);
    expect_same(g, f, 0, "copies");
    for (uint32_t i = 0; i < f->n_outputs; i++) cr_expect(ir_at(f, f->outputs[i].value)->region, "output %u has no kernel", i);
    for (uint32_t i = 0; i < f->n_effects; i++) {           /* all of them in place */
      ir_ref param = ir_at(f, f->effects[i])->args[0], value = ir_at(f, f->effects[i])->args[1];
      uint32_t n;
      const int64_t *pairs = ir_kernel_get(f, ir_at(f, value)->region, "inplace", &n);
      bool found = false;
      for (uint32_t k = 0; k + 1 < n; k += 2) found |= pairs[k] == value && pairs[k + 1] == param;
      cr_expect(found, "assign %u is not in place", i);
    }
    ir_graph_free(f);
  }
  ir_graph_free(g);
}

Test(fuse, random_graphs) {
  for (int i = 0; i < 250; i++) {
    ir_graph *g = random_graph((uint64_t)i, 12 + i % 40);
    pass_options o = options_of_test;
    char what[40];
    snprintf(what, sizeof what, "random graph %d", i);
    ir_graph *d = passes(g, "decompose,tidy", &o), *l = passes(d, "layout", &o), *f = passes(l, "fuse,schedule,memory", &o), *s = passes(d, "schedule,memory", &o);
    check_form(f);
    check_form(s);
    expect_same(d, l, 1e-4, what);
    expect_same(l, f, 0, what);
    expect_same(d, s, 0, what);
    ir_graph_free(g), ir_graph_free(d), ir_graph_free(l), ir_graph_free(f), ir_graph_free(s);
  }
}
