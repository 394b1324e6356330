/* Products large enough for OpenBLAS: equal to our own kernel's on whole numbers (all four transpositions, a row count that is no multiple of a slice), and the
 * same on any team. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/tinytorch.h"
#include "ir/ir.h"

/* a [m,k] (or [k,m]) times b [k,n] (or [n,k]) on n_threads; the caller frees. */
static tt_tensor *product(tt_dtype t, bool ta, bool tb, int n_threads) {
  enum { M = 1030, N = 1024, K = 1027 };
  tt_error err = {0};
  tt_trace *trace = tt_trace_new("product", false);
  tt_val a = tt_input(trace, "a", t, ta ? TT_SHAPE(K, M) : TT_SHAPE(M, K)), b = tt_input(trace, "b", t, tb ? TT_SHAPE(N, K) : TT_SHAPE(K, N));
  tt_output(trace, "c", tt_matmul(ta ? tt_transpose(a, 0, 1) : a, tb ? tt_transpose(b, 0, 1) : b));
  ir_graph *g = NULL;
  rt_program *p = NULL;
  cr_assert_eq(tt_trace_finish(trace, &g, &err), TT_OK, "%s", err.message);
  cr_assert_eq(tt_compile(g, NULL, &p, &err), TT_OK, "%s", err.message);
  rt_team *team = rt_team_new(n_threads, &err);
  rt_instance *x = rt_instance_new(p, team, &err);
  for (int i = 0; i < 2; i++) {
    int slot = rt_slot_find(p, i ? "b" : "a");
    tt_tensor *in = tt_tensor_new(t, &p->slots[slot].shape, &err);
    for (int64_t e = 0; e < tt_shape_count(&p->slots[slot].shape); e++) ir_store_double(t, tt_tensor_data(in), e, (double)(tt_random_word(3, 0, (uint32_t)i, (uint64_t)e) % 5) - 2);
    cr_assert_eq(rt_bind(x, i ? "b" : "a", in, &err), TT_OK, "%s", err.message);
    tt_tensor_free(in);
  }
  cr_assert_eq(rt_run(x, &err), TT_OK, "%s", err.message);
  tt_tensor *c = tt_tensor_retain(rt_bound(x, "c"));
  rt_instance_free(x);
  rt_program_free(p);
  rt_team_free(team);
  ir_graph_free(g);
  tt_trace_free(trace);
  return c;
}

static bool same(tt_tensor *a, tt_tensor *b) {
  tt_shape s = tt_tensor_shape(a);
  return memcmp(tt_tensor_data(a), tt_tensor_data(b), (size_t)tt_shape_count(&s) * tt_dtype_size(tt_tensor_dtype(a))) == 0;
}

static void check(tt_dtype t, bool ta, bool tb) {
  setenv("TT_BLAS", "0", 1);
  tt_tensor *ours = product(t, ta, tb, 2);
  unsetenv("TT_BLAS");
  tt_tensor *one = product(t, ta, tb, 1), *two = product(t, ta, tb, 2);
  cr_assert(same(ours, one), "%s ta=%d tb=%d: OpenBLAS gives something else", tt_dtype_name(t), ta, tb);
  cr_assert(same(one, two), "%s ta=%d tb=%d: 2 threads give something else than 1", tt_dtype_name(t), ta, tb);
  tt_tensor_free(ours), tt_tensor_free(one), tt_tensor_free(two);
}

Test(blas, f32) {
  for (int i = 0; i < 4; i++) check(TT_F32, i & 1, i >> 1);
}
Test(blas, f64) { check(TT_F64, false, true); }
