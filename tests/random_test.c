/* Random graphs with fixed seeds (TT_RANDOM_GRAPHS: how many): JIT against interpreter, with each optional pass left out in turn; and the text form. */
#include "random_run.h"

Test(random_graphs, jit_is_interpreter) {
  int n = random_count(60), compiled = 0;
  tt_error err = {0};
  rt_team *team = rt_team_new(2, &err);
  cr_assert(team, "%s", err.message);
  for (int seed = 1; seed <= n; seed++) {
    ir_graph *g = random_graph_new((uint64_t)seed, 4 + seed % 20), *plain = NULL;
    void **want = random_evaluated(g, seed, "graph", &plain);
    random_jit(g, plain, want, NULL, seed, "graph", team);
    compiled += 1 + random_jit_without_each(g, plain, want, seed, "graph", team);
    random_release(plain, want);
    ir_graph_free(g);
  }
  rt_team_free(team);
  printf("TABLE %d random graphs, %d compilations: JIT = interpreter\n", n, compiled);
}

Test(random_graphs, text_round_trip) {
  int n = random_count(300);
  for (int seed = 1; seed <= n; seed++) {
    tt_error err = {0};
    ir_graph *g = random_graph_new((uint64_t)seed, 4 + seed % 20), *ready = NULL;
    cr_assert_eq(pass_run(g, &ready, NULL, NULL, &(pass_options){.vector_bytes = 32, .n_registers = 16}, NULL, NULL, &err), TT_OK, "graph %d: %s", seed, err.message);
    const ir_graph *both[] = {g, ready};
    for (int i = 0; i < 2; i++) {
      char *first = ir_print(both[i]);
      ir_graph *parsed = ir_parse(first, strlen(first), "random.tt", &err);
      cr_assert(parsed, "graph %d: %s\n%s", seed, err.message, first);
      char *second = ir_print(parsed);
      cr_assert_str_eq(first, second, "graph %d", seed);
      free(first), free(second);
      ir_graph_free(parsed);
    }
    ir_graph_free(ready);
    ir_graph_free(g);
  }
  printf("TABLE %d random graphs, each at two stages: print, parse, print gives the same bytes\n", n);
}
