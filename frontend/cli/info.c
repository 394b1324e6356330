/* info.c: what this machine is and what it can do, measured now. */
#include "cli.h"

const cli_option cli_info_options[] = {
  {"threads", "N", "measure with this many threads too (default: as many as this process may use)"},
  {NULL, NULL, NULL},
};

static void print_line(void *user, const char *text) { puts(text); }

int cli_info(const cli_args *a) {
  tt_error err = {0};
  cg_cpu cpu;
  int64_t threads;
  if (a->n_words) return cli_usage(a, "takes no argument");
  if (!cli_int(a, "threads", 0, 0, &threads)) return 2;
  rt_team *team = NULL;
  if (cg_cpu_get(NULL, &cpu, &err) == TT_OK) team = rt_team_new((int)threads, &err);
  if (!team) return cli_fail(&err);
  printf("compiles for      %s: %d-byte vectors, %d vector registers%s%s%s%s%s\n", cpu.name, cpu.vector_bytes, cpu.n_registers, cpu.fma ? ", fma" : "",
         cpu.f16c ? ", f16c" : "", cpu.vnni ? ", vnni" : "", cpu.bf16 ? ", bf16" : "", cpu.amx ? ", amx" : "");
  rt_machine_report(team, print_line, NULL);
  rt_team_free(team);
  return 0;
}
