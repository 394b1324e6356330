/* Which bytes a task touches, as read off a kernel's loops, and what follows from it: a chain of elementwise kernels has no barrier. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/codegen.h"
#include "frontend/tinytorch.h"

/* task*64 + 0..63 of a and out; b by all; c as two tasks overlap; d with another stride; e backwards. */
Test(shares, strides) {
  lp_kernel *k = lp_new("k", 10);
  const char *names[] = {"a", "b", "c", "d", "e", "out"};
  for (int i = 0; i < 6; i++) lp_buffer_add(k, names[i], i == 3 ? TT_F64 : TT_F32, 2000, i == 5, false);
  lp_buffer_add(k, "scratch", TT_F32, 64, true, true);
  lp_cursor top = {&k->body}, in;
  int v = lp_var_add(k, "v", 64);
  lp_for(k, &top, v, 0, 64, 8, &in);
  lp_ref task = lp_var(k, 0), i = lp_add(k, lp_mul(k, task, 64), lp_var(k, v));
  lp_ref x = lp_load(k, 0, i, 0, 0);
  x = lp_op(k, IR_add, TT_F32, x, lp_load(k, 1, lp_var(k, v), 0, 0), 0);
  x = lp_op(k, IR_add, TT_F32, x, lp_load(k, 2, lp_add(k, i, lp_int(k, 1)), 0, 0), 0);
  x = lp_op(k, IR_add, TT_F32, x, lp_op(k, IR_cast, TT_F32, lp_load(k, 3, lp_add(k, lp_mul(k, task, 100), lp_var(k, v)), 0, 0), 0, 0), 0);
  x = lp_op(k, IR_add, TT_F32, x, lp_load(k, 4, lp_add(k, lp_mul(k, task, -64), lp_int(k, 640)), 0, 0), 0);
  lp_stmt *s = lp_append(k, &in, LS_STORE);
  s->buffer = 5, s->index = i, s->value = x;
  int64_t bytes[6];
  cg_task_bytes(k, bytes);
  const int64_t want[6] = {256, 0, 0, 800, 0, 256};
  for (int b = 0; b < 6; b++) cr_expect_eq(bytes[b], want[b], "%s: %lld", names[b], (long long)bytes[b]);
  lp_free(k);
}

static rt_program *compile(bool last) {
  tt_error err = {0};
  tt_trace *t = tt_trace_new("chain", false);
  tt_val x = tt_input(t, "x", TT_F32, TT_SHAPE(512, 300)), y = tt_input(t, "y", TT_F32, TT_SHAPE(512, 300)), z = x;
  for (int i = 0; i < 5; i++) z = i % 2 ? tt_add(z, y) : tt_mul(z, y);
  tt_output(t, "z", z);
  if (last) tt_output(t, "sums", tt_sum(tt_mul(z, z), TT_AXES(0), false));
  ir_graph *g = NULL;
  rt_program *p = NULL;
  cr_assert_eq(tt_trace_finish(t, &g, &err), TT_OK, "%s", err.message);
  cr_assert_eq(tt_compile(g, &(tt_compile_options){.skip = "fuse"}, &p, &err), TT_OK, "%s", err.message);
  ir_graph_free(g);
  tt_trace_free(t);
  return p;
}

Test(shares, a_chain_needs_no_barrier) {
  rt_program *p = compile(false);
  cr_assert_eq(p->n_steps, 5);
  for (uint32_t i = 0; i < p->n_steps; i++) cr_expect(!p->steps[i].barrier && p->steps[i].tasks > 1, "step %u", i);
  rt_program_free(p);
  p = compile(true);                                       /* a sum over the axis that tasks are cut along reads what all threads wrote */
  cr_expect(p->steps[p->n_steps - 1].barrier);
  rt_program_free(p);
}
