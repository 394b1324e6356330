/* memory_test.c: programs run in the arena that memory laid out, kernel by kernel, give what the same graph gives with a buffer for every
 * row; the arena is as small as it can be in cases where that is known; results are written over arguments where that is right, and only there. */
#include "passes/form.h"
#include "tests/passes/check.h"

typedef struct { const ir_graph *g; char *arena; void **at; bool *owned; } machine;     /* at: where a row's value is */

static size_t bytes_of(const ir_graph *g, ir_ref r) {
  tt_shape s = ir_shape(g, r);
  return (size_t)tt_shape_count(&s) * tt_dtype_size((tt_dtype)ir_at(g, r)->dtype);
}

/* The arena as memory laid it out: rows of a kernel are computed aside, then its results go to their places at once. */
static void run_in_arena(machine *m, void **start) {
  const ir_graph *g = m->g;
  m->arena = malloc((size_t)g->arena_bytes + 1);
  memset(m->arena, 0xA5, (size_t)g->arena_bytes + 1);
  m->at = calloc(g->n_nodes, sizeof *m->at), m->owned = calloc(g->n_nodes, sizeof *m->owned);
  void **aside = calloc(g->n_nodes, sizeof *aside);
  for (ir_ref r = 1; r < g->n_nodes; r++) {
    const ir_node *n = ir_at(g, r);
    if (n->region || n->op == IR_assign) continue;
    m->at[r] = malloc(bytes_of(g, r) + 1), m->owned[r] = true;
    memcpy(m->at[r], start[r], bytes_of(g, r));
  }
  for (ir_ref first = 1, end; first < g->n_nodes; first = end) {
    uint32_t region = ir_at(g, first)->region, n_pairs;
    for (end = first + 1; end < g->n_nodes && ir_at(g, end)->region == region;) end++;
    if (!region) continue;
    for (ir_ref r = first; r < end; r++) {
      const ir_node *n = ir_at(g, r);
      const void *args[8];
      tt_error err = {0};
      cr_assert_leq(n->n_args, 8);
      for (uint32_t k = 0; k < n->n_args; k++) args[k] = n->args[k] >= first ? aside[n->args[k]] : m->at[n->args[k]];
      aside[r] = malloc(bytes_of(g, r) + 1);
      cr_assert_eq(ir_eval_node(g, r, args, aside[r], &err), TT_OK, "%s", err.message);
    }
    const int64_t *pairs = ir_kernel_get(g, region, "inplace", &n_pairs);
    for (ir_ref r = first; r < end; r++) {
      for (uint32_t k = 0; k + 1 < n_pairs; k += 2)
        if (pairs[k] == r) m->at[r] = m->at[pairs[k + 1]];
      if (ir_at(g, r)->place != IR_UNPLACED) {
        cr_assert_eq(ir_at(g, r)->place % 64, 0);
        m->at[r] = m->arena + ir_at(g, r)->place;
      }
      if (!m->at[r]) m->at[r] = malloc(bytes_of(g, r) + 1), m->owned[r] = true;      /* an output, or of this kernel alone */
      memcpy(m->at[r], aside[r], bytes_of(g, r));
      free(aside[r]);
    }
  }
  free(aside);
}

static void stop(machine *m) {
  for (ir_ref r = 1; r < m->g->n_nodes; r++)
    if (m->owned[r]) free(m->at[r]);
  free(m->arena), free(m->at), free(m->owned);
}

/* Bytes of the arena that are in use at the worst moment: no arena can be smaller. */
static int64_t least(const ir_graph *g) {
  int64_t most = 0;
  uint32_t *last = calloc(g->n_nodes, sizeof *last), now = 0;
  for (ir_ref r = 1; r < g->n_nodes; r++) {
    if (!ir_at(g, r)->region || ir_at(g, r)->region != ir_at(g, r - 1)->region) now++;
    for (uint32_t k = 0; k < ir_at(g, r)->n_args; k++) last[ir_at(g, r)->args[k]] = now;
  }
  now = 0;
  for (ir_ref r = 1; r < g->n_nodes; r++) {
    if (ir_at(g, r)->region && ir_at(g, r)->region == ir_at(g, r - 1)->region) continue;
    now++;
    int64_t bytes = 0;
    uint32_t at = 0;
    for (ir_ref x = 1; x < g->n_nodes; x++) {
      if (!ir_at(g, x)->region || ir_at(g, x)->region != ir_at(g, x - 1)->region) at++;
      if (ir_at(g, x)->place == IR_UNPLACED || at > now || last[x] < now) continue;
      bool again = false;                             /* what is handed over in place counts once */
      for (ir_ref y = 1; y < x && !again; y++) again = ir_at(g, y)->place == ir_at(g, x)->place && last[y] == now && bytes_of(g, y) && at == now;
      if (!again) bytes += (int64_t)((bytes_of(g, x) + 63) & ~(size_t)63);
    }
    if (bytes > most) most = bytes;
  }
  free(last);
  return most;
}

static void check(ir_graph *g, const char *names, const pass_options *o, double slack) {
  ir_graph *f = passes(g, names, o);
  void **values = run(f), **start = calloc(f->n_nodes, sizeof *start);
  for (ir_ref r = 1; r < f->n_nodes; r++) start[r] = values[r];
  machine m = {.g = f};
  run_in_arena(&m, start);
  for (uint32_t i = 0; i < f->n_outputs; i++) {
    ir_ref y = f->outputs[i].value;
    cr_assert_eq(ir_at(f, y)->place, IR_UNPLACED);
    cr_assert(!memcmp(m.at[y], values[y], bytes_of(f, y)), "%s: output %u is wrong", f->name, i);
  }
  for (uint32_t i = 0; i < f->n_effects; i++) {
    ir_ref p = ir_at(f, f->effects[i])->args[0], v = ir_at(f, f->effects[i])->args[1];
    cr_assert(m.at[p] == m.at[v], "%s: assign %u is not in place", f->name, i);
    cr_assert(!memcmp(m.at[p], values[v], bytes_of(f, v)), "%s: assign %u is wrong", f->name, i);
  }
  int64_t bound = least(f);
  cr_expect_geq(f->arena_bytes, bound);
  cr_expect_leq((double)f->arena_bytes, (double)bound * slack, "%s: arena of %lld bytes, %lld are used", f->name, (long long)f->arena_bytes, (long long)bound);
  stop(&m);
  release(f, values);
  free(start);
  ir_graph_free(f), ir_graph_free(g);
}

Test(memory, nets_run_in_their_arena) {
  pass_options o = options_of_test;
  o.train = true, o.optimizer = "adam", o.hyper = "";
  check(mlp(8, 12, 16, 10), NULL, &o, 1.1);
  check(cnn(2, 8, 4, false), NULL, &o, 1.1);
  check(cnn(2, 9, 4, true), NULL, &o, 1.1);
  check(transformer(2, 6, 8, 2), NULL, &o, 1.1);
  o.skip = "fuse,layout";
  check(mlp(8, 12, 16, 10), NULL, &o, 1.1);
  check(cnn(2, 8, 4, false), NULL, &o, 1.1);
  check(transformer(2, 6, 8, 2), NULL, &o, 1.1);
}

Test(memory, random_graphs_run_in_their_arena) {
  pass_options o = options_of_test;
  for (int i = 0; i < 200; i++) {
    check(random_graph((uint64_t)i + 5000, 12 + i % 40), "decompose,tidy,fuse,schedule,memory", &o, 1.6);
    check(random_graph((uint64_t)i + 5000, 12 + i % 40), "decompose,schedule,memory", &o, 1.6);
  }
}

/* A chain of products needs two buffers, however long it is. */
Test(memory, a_chain_has_two_buffers) {
  ir_graph *g = ir_graph_new("chain");
  ir_ref x = ir_input(g, "x", TT_F32, S(16, 16)), w = ir_input(g, "w", TT_F32, S(16, 16));
  for (int i = 0; i < 9; i++) x = ir_matmul(g, x, w, false, false, 1);
  ir_output_add(g, "y", x);
  pass_options o = options_of_test;
  ir_graph *f = passes(g, "fuse,schedule,memory", &o);
  cr_expect_eq(f->n_kernels - 1, 9);
  cr_expect_eq(f->arena_bytes, 2 * 16 * 16 * 4);
  ir_graph_free(f), ir_graph_free(g);
}

static int pairs_of(const ir_graph *g, const char *name) {
  int total = 0;
  for (uint32_t k = 1; k < g->n_kernels; k++) {
    uint32_t n = 0;
    ir_kernel_get(g, k, name, &n);
    total += (int)n / 2;
  }
  return total;
}

typedef ir_ref reader(ir_graph *g, ir_ref x);
static ir_ref elementwise(ir_graph *g, ir_ref x) { return ir_ew1(g, IR_exp, x); }
static ir_ref transposed(ir_graph *g, ir_ref x) { return ir_transpose(g, x, 0, 1); }
static ir_ref softmax(ir_graph *g, ir_ref x) { return ir_softmax(g, IR_softmax, x, 1); }
static ir_ref with_transposed(ir_graph *g, ir_ref x) { return ir_ew2(g, IR_add, x, ir_transpose(g, x, 0, 1)); }
static ir_ref prefix_sums(ir_graph *g, ir_ref x) { return ir_cumsum(g, x, 0, false, false); }
static ir_ref updated(ir_graph *g, ir_ref x) { return ir_dynamic_update_slice(g, x, ir_full(g, TT_F32, S(1, 8), 3), ir_full(g, TT_I64, S(2), 1)); }

/* A result is written over an argument that dies only if each element is read where it is written, and nowhere else. */
Test(memory, in_place_where_it_is_right) {
  static const struct { const char *name; reader *read; bool fuse; int pairs; } cases[] = {
      {"elementwise", elementwise, false, 1}, {"transposed", transposed, false, 0}, {"softmax", softmax, true, 0},
      {"with_transposed", with_transposed, true, 0}, {"prefix_sums", prefix_sums, false, 0}, {"updated", updated, false, 1}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    ir_graph *g = ir_graph_new(cases[i].name);
    ir_ref x = ir_matmul(g, ir_input(g, "a", TT_F32, S(8, 8)), ir_input(g, "b", TT_F32, S(8, 8)), false, false, 1);
    ir_ref y = cases[i].read(g, x);
    ir_output_add(g, "y", ir_matmul(g, y, y, false, false, 1));
    pass_options o = options_of_test;
    ir_graph *f = passes(g, cases[i].fuse ? "decompose,tidy,fuse,schedule,memory" : "decompose,tidy,schedule,memory", &o);
    cr_expect_eq(pairs_of(f, "reuse"), cases[i].pairs, "%s: %d", cases[i].name, pairs_of(f, "reuse"));
    ir_graph_free(g), ir_graph_free(f);
  }
}

/* A param is overwritten by the last kernel that reads it: both readers of p come first, whatever the order of rows. */
Test(memory, params_are_read_before_they_are_written) {
  ir_graph *g = ir_graph_new("order");
  ir_ref x = ir_input(g, "x", TT_F32, S(8, 8)), p = ir_param(g, "p", TT_F32, S(8, 8), true);
  ir_ref next = ir_ew2(g, IR_sub, p, ir_matmul(g, x, x, true, false, 1));
  ir_assign(g, p, next);
  ir_output_add(g, "y", ir_matmul(g, x, p, false, false, 1));
  ir_output_add(g, "z", ir_matmul(g, p, p, false, false, 1));
  pass_options o = options_of_test;
  ir_graph *f = passes(g, "fuse,schedule,memory", &o);
  cr_expect_eq(f->n_kernels - 1, 3);
  cr_expect_eq(pairs_of(f, "inplace"), 1);
  cr_expect_eq(f->arena_bytes, 0);
  ir_graph_free(f);
  check(g, "fuse,schedule,memory", &o, 1);
}

/* What pass_plan says of an arena: no two values that are alive in one kernel share a byte, all lie inside, and at the peak they are what the bound is. */
static void check_plan(ir_graph *g, const char *names, const pass_options *o) {
  ir_graph *f = passes(g, names, o);
  tt_error err = {0};
  pass_plan *p = pass_plan_of(f, &err);
  cr_assert(p, "%s", err.message);
  cr_expect_eq(p->n_kernels, (int)f->n_kernels - 1);
  int64_t at_peak = 0;
  for (int i = 0; i < p->n_values; i++) {
    const pass_value *v = &p->values[i];
    cr_assert(v->offset >= 0 && v->offset % 64 == 0 && v->offset + v->bytes <= p->arena_bytes && v->first <= v->last);
    cr_assert_geq(v->bytes, (int64_t)bytes_of(f, v->row));
    if (v->first <= p->peak && v->last >= p->peak) at_peak += v->bytes;
    for (int k = 0; k < i; k++) {
      const pass_value *w = &p->values[k];
      bool together = v->first <= w->last && w->first <= v->last, share = v->offset < w->offset + w->bytes && w->offset < v->offset + v->bytes;
      cr_assert(!together || !share, "%s: rows %u and %u share bytes", f->name, v->row, w->row);
    }
  }
  cr_expect_eq(at_peak, p->bound);
  cr_expect_leq(p->bound, p->arena_bytes);
  pass_plan_free(p);
  ir_graph_free(f), ir_graph_free(g);
}

Test(memory, live_values_never_share_bytes) {
  pass_options o = options_of_test;
  for (int i = 0; i < 300; i++) {
    check_plan(random_graph((uint64_t)i + 9000, 12 + i % 60), "decompose,tidy,fuse,schedule,memory", &o);
    check_plan(random_graph((uint64_t)i + 9000, 12 + i % 60), "decompose,schedule,memory", &o);
  }
  o.train = true, o.optimizer = "adam", o.hyper = "";
  check_plan(mlp(8, 12, 16, 10), NULL, &o);
  check_plan(cnn(2, 9, 4, true), NULL, &o);
  check_plan(transformer(2, 6, 8, 2), NULL, &o);
}

/* Buffers of random sizes and lives: the arena is never below the bound, and on average within 3% of it. */
Test(memory, placement_is_close_to_the_bound) {
  uint64_t s = 7;
  double excess = 0;
  enum { ROUNDS = 60 };
  for (int round = 0; round < ROUNDS; round++) {
    place_buffer b[200];
    int n = 1 + pick(&s, 200), kernels = 2 + pick(&s, 100), at;
    for (int i = 0; i < n; i++) {
      int first = pick(&s, kernels), life = pick(&s, 4) ? pick(&s, 4) : pick(&s, kernels);
      b[i] = (place_buffer){.bytes = 64 * (pick(&s, 3) ? 1 + pick(&s, 64) : 1 << pick(&s, 9)), .first = first, .last = first + life < kernels ? first + life : kernels - 1};
    }
    int64_t bound = place_bound(b, n, &at), arena = place_buffers(b, n);
    cr_assert_geq(arena, bound);
    for (int i = 0; i < n; i++)
      for (int k = 0; k < i; k++)
        cr_assert(b[i].first > b[k].last || b[k].first > b[i].last || b[i].offset >= b[k].offset + b[k].bytes || b[k].offset >= b[i].offset + b[i].bytes);
    excess += (double)arena / (double)bound - 1;
  }
  cr_expect_leq(excess / ROUNDS, 0.03, "%.3f", excess / ROUNDS);
}

/* A dump whose offsets were changed by hand so that two live values overlap is refused, whoever reads it. */
Test(memory, overlapping_offsets_are_refused) {
  ir_graph *g = ir_graph_new("overlap");
  ir_ref x = ir_input(g, "x", TT_F32, S(16, 16)), y = ir_matmul(g, x, x, false, false, 1), z = ir_matmul(g, y, x, false, false, 1);
  ir_output_add(g, "y", ir_matmul(g, y, z, false, false, 1));
  pass_options o = options_of_test;
  ir_graph *f = passes(g, "fuse,schedule,memory", &o);
  char *text = ir_print(f), *second = strstr(text, "@1024");
  cr_assert(second && !strstr(second + 1, "@1024"), "%s", text);
  memcpy(second, "@ 960", 5);
  tt_error err = {0};
  ir_graph *back = ir_parse(text, strlen(text), "dump", &err), *out;
  cr_assert(back, "%s", err.message);
  cr_expect_neq(ir_verify(back, "parsing", &err), TT_OK);
  cr_expect(strstr(err.message, "shares bytes of the arena"), "%s", err.message);
  err = (tt_error){0};
  cr_expect_neq(pass_run(back, &out, "memory", NULL, &o, NULL, NULL, &err), TT_OK);
  free(text);
  ir_graph_free(g), ir_graph_free(f), ir_graph_free(back);
}

/* The least arena that recompute says it can reach. */
static int64_t least_arena(const ir_graph *scheduled, pass_options o) {
  tt_error err = {0};
  ir_graph *out;
  o.memory_budget = 1;
  if (pass_run(scheduled, &out, "recompute,memory", NULL, &o, NULL, NULL, &err) == TT_OK) return ir_graph_free(out), 0;
  long long bytes = -1;
  const char *allow = strstr(err.message, "fix: allow ");
  cr_assert(allow && sscanf(allow, "fix: allow %lld", &bytes) == 1, "%s", err.message);
  return bytes;
}

/* At every budget: the arena is within it, it runs in its arena, the numbers are those without a budget to the bit, and no budget costs more than a smaller one. */
static void check_budgets(ir_graph *g, const char *names, const pass_options *options, double reach) {
  pass_options o = *options;
  ir_graph *scheduled = passes(g, names, &o), *whole = passes(scheduled, "memory", &o);
  int64_t all = whole->arena_bytes, least = least_arena(scheduled, o);
  cr_expect_leq((double)least, reach * (double)all, "%s: of %lld bytes at least %lld", g->name, (long long)all, (long long)least);
  double work = 0;
  for (int i = 0; i <= 6; i++) {
    if (all == 0 || (least == 0 && i == 6)) continue;
    o.memory_budget = all - (all - least) * i / 6;
    ir_graph *f = passes(scheduled, "recompute,memory", &o);
    cr_expect_leq(f->arena_bytes, o.memory_budget);
    cr_expect_geq(pass_work(f), work);
    work = pass_work(f);
    expect_same(whole, f, 0, g->name);
    ir_graph_free(f);
    check(ir_clone(scheduled), "recompute,memory", &o, 1.7);
    check_plan(ir_clone(scheduled), "recompute,memory", &o);
  }
  ir_graph_free(g), ir_graph_free(scheduled), ir_graph_free(whole);
}

Test(memory, budgets_hold_to_the_same_bits) {
  pass_options o = options_of_test;
  const char *names = "simplify,grad,update,decompose,tidy,layout,fuse,schedule";
  o.train = true, o.optimizer = "adam", o.hyper = "";
  check_budgets(mlp(32, 12, 16, 10), names, &o, 1);
  check_budgets(cnn(4, 8, 4, false), names, &o, 0.9);
  check_budgets(cnn(4, 9, 4, true), names, &o, 0.9);
  check_budgets(transformer(4, 6, 8, 2), names, &o, 0.9);
  check_budgets(transformer(4, 6, 8, 2), "simplify,grad,update,decompose,tidy,schedule", &o, 0.9);
  o.train = false;
  for (int i = 0; i < 60; i++) check_budgets(random_graph((uint64_t)i + 300, 20 + i), i % 2 ? "decompose,tidy,fuse,schedule" : "decompose,schedule", &o, 1);
}

/* A chain of elementwise layers, each kept for its derivative, is the textbook case: the arena shrinks far below one value a layer. */
Test(memory, a_deep_chain_is_made_again) {
  ir_graph *g = ir_graph_new("deep");
  ir_ref x = ir_input(g, "x", TT_F32, S(64, 32));
  char name[20];
  for (int i = 0; i < 24; i++) {
    snprintf(name, sizeof name, "w%d", i);
    x = ir_ew1(g, IR_tanh, ir_matmul(g, x, ir_param(g, name, TT_F32, S(32, 32), true), false, false, 1));
  }
  ir_output_add(g, "loss", ir_mean(g, ir_ew2(g, IR_mul, x, x), NULL, 0, false));
  pass_options o = options_of_test;
  o.train = true, o.optimizer = "sgd", o.hyper = "";
  ir_graph *scheduled = passes(g, "simplify,grad,update,decompose,tidy,layout,fuse,schedule", &o), *whole = passes(scheduled, "memory", &o);
  cr_expect_geq(whole->arena_bytes, 24 * 64 * 32 * 4);
  cr_expect_leq(least_arena(scheduled, o), whole->arena_bytes / 2);
  ir_graph_free(scheduled), ir_graph_free(whole);
  check_budgets(g, "simplify,grad,update,decompose,tidy,layout,fuse,schedule", &o, 0.5);
}

/* Rows without elements and of rank 0 take no harm. */
Test(memory, empty_shapes) {
  ir_graph *g = ir_graph_new("empty");
  ir_ref x = ir_input(g, "x", TT_F32, S(0, 4)), w = ir_input(g, "w", TT_F32, S(4, 3)), z = ir_input(g, "z", TT_F32, S(3, 0));
  ir_output_add(g, "y", ir_ew1(g, IR_exp, ir_matmul(g, x, w, false, false, 1)));
  ir_output_add(g, "k", ir_matmul(g, ir_ew1(g, IR_exp, z), x, false, false, 1));
  ir_output_add(g, "s", ir_reduce(g, IR_sum, ir_softmax(g, IR_softmax, x, 1), NULL, 0, false));
  ir_output_add(g, "r", ir_transpose(g, ir_reshape(g, ir_ew1(g, IR_exp, x), S(4, 0)), 0, 1));
  pass_options o = options_of_test;
  ir_graph *again = ir_clone(g);
  check(g, "decompose,tidy,layout,fuse,schedule,memory", &o, 1);
  check(again, "decompose,schedule,memory", &o, 1);
}

/* Plans name rows by number (inplace, reuse): a dump that is read again says the same, and is verified again. */
Test(memory, dumps_parse_back) {
  ir_graph *g = ir_graph_new("back");
  float table[4] = {1, 2, 3, 4};
  ir_ref c = ir_const(g, TT_F32, S(4), table), x = ir_input(g, "x", TT_F32, S(4, 4)), p = ir_param(g, "p", TT_F32, S(4, 4), true);
  ir_ref y = ir_ew2(g, IR_mul, ir_matmul(g, x, x, false, false, 1), c);
  ir_assign(g, p, ir_ew2(g, IR_add, p, y));
  ir_output_add(g, "y", ir_matmul(g, y, ir_input(g, "z", TT_F32, S(4, 4)), false, false, 1));
  pass_options o = options_of_test;
  ir_graph *f = passes(g, "fuse,schedule,memory", &o);
  cr_expect_eq(pairs_of(f, "inplace"), 1);
  char *text = ir_print(f);
  tt_error err = {0};
  ir_graph *back = ir_parse(text, strlen(text), "dump", &err);
  cr_assert(back, "%s", err.message);
  cr_expect_eq(ir_verify(back, "parsing", &err), TT_OK, "%s", err.message);
  char *again = ir_print(back);
  cr_expect_str_eq(text, again);
  free(text), free(again);
  ir_graph_free(g), ir_graph_free(f), ir_graph_free(back);
}
