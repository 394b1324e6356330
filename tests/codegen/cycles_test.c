/* A thousand times compile, run and free: memory stays flat. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <unistd.h>

#include "frontend/tinytorch.h"
#include "ir/ir.h"

static long resident_pages(void) {
  long size = 0, resident = 0;
  FILE *f = fopen("/proc/self/statm", "r");
  cr_assert(f && fscanf(f, "%ld %ld", &size, &resident) == 2);
  fclose(f);
  return resident;
}

static void cycle(rt_team *team, int i) {
  tt_error err = {0};
  tt_trace *t = tt_trace_new("cycle", true);
  tt_val x = tt_input(t, "x", TT_F32, TT_SHAPE(8, 16));
  tt_output(t, "loss", tt_mean(tt_square(tt_relu(tt_linear(x, "fc", 4 + i % 3))), TT_ALL, false));
  struct ir_graph *g = NULL;
  rt_program *p = NULL;
  cr_assert_eq(tt_trace_finish(t, &g, &err), TT_OK, "%s", err.message);
  cr_assert_eq(tt_compile(g, &(tt_compile_options){.backend = "jit"}, &p, &err), TT_OK, "%s", err.message);
  rt_instance *run = rt_instance_new(p, team, &err);
  for (uint32_t s = 0; s < p->n_slots; s++) {
    if (p->slots[s].kind != RT_INPUT && p->slots[s].kind != RT_PARAM) continue;
    tt_tensor *zeros = tt_tensor_new(p->slots[s].dtype, &p->slots[s].shape, &err);
    rt_bind(run, p->slots[s].name, zeros, &err);
    tt_tensor_free(zeros);
  }
  cr_assert_eq(rt_run(run, &err), TT_OK, "%s", err.message);
  rt_instance_free(run);
  rt_program_free(p);
  ir_graph_free(g);
  tt_trace_free(t);
}

Test(cycles, memory_stays_flat) {
  tt_error err = {0};
  rt_team *team = rt_team_new(2, &err);
  for (int i = 0; i < 200; i++) cycle(team, i);
  long before = resident_pages();
  for (int i = 0; i < 800; i++) cycle(team, i);
  double grown = (double)(resident_pages() - before) * (double)sysconf(_SC_PAGESIZE) / (1 << 20);
  printf("TABLE after 200 and 1000 compile-and-free cycles: %+.1f MiB\n", grown);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#if !defined(__has_feature)
  cr_assert_lt(grown, 4);
#elif !__has_feature(address_sanitizer) && !__has_feature(thread_sanitizer)
  cr_assert_lt(grown, 4);
#endif
#endif
  rt_team_free(team);
}
