/* graphs.c: the commands that work on graphs in text form (opt, run) and on the language itself (ops). */
#include <stdlib.h>
#include <string.h>

#include "cli.h"

const cli_option cli_opt_options[] = {
  {"passes", "a,b,c", "passes to run, in this order (default: none: reads and prints)"},
  {"train", NULL, "output 0 is the loss: grad and update do their work"},
  {"optimizer", "NAME", "for update (default sgd)"},
  {"hyper", "\"k=v, ...\"", "hyperparameters of the optimizer"},
  {"clip-norm", "X", "scale gradients to this global norm at most"},
  {"gradients", NULL, "keep grad.NAME outputs"},
  {"skip", "a,b", "optional passes left out"},
  {"output", "FILE", "instead of standard output"},
  {NULL, NULL, NULL},
};

static ir_graph *read_graph(const char *path, tt_error *err) {
  size_t length;
  char *text = cli_read_file(path, &length, err);
  if (!text) return NULL;
  ir_graph *g = ir_parse(text, length, path, err);
  free(text);
  tt_error wrong = {0};
  if (!g || ir_verify(g, "reading", &wrong) == TT_OK) return g;
  char *fix = strstr(wrong.message, "\n  fix:");        /* it is the text that is wrong, not the compiler */
  tt_fail(err, TT_INVALID, "%.*s in %s\n  fix: correct the text", (int)(fix ? fix - wrong.message : (long)strlen(wrong.message)), wrong.message, path);
  ir_graph_free(g);
  return NULL;
}

int cli_opt(const cli_args *a) {
  tt_error err = {0};
  if (a->n_words != 1) return cli_usage(a, "one file (or -)");
  double clip;
  if (!cli_double(a, "clip-norm", 0, &clip) || !cli_target(a) || !cli_passes(a, "passes", false)) return 2;
  cg_cpu cpu;
  if (cg_cpu_get(NULL, &cpu, &err)) return cli_fail(&err);
  pass_options o = {.train = cli_has(a, "train"), .optimizer = cli_get(a, "optimizer", "sgd"), .hyper = cli_get(a, "hyper", NULL), .clip_norm = clip,
                    .gradients = cli_has(a, "gradients"), .skip = cli_get(a, "skip", NULL), .bf16 = cpu.bf16 || cpu.amx, .vector_bytes = cpu.vector_bytes, .n_registers = cpu.n_registers};
  ir_graph *g = read_graph(a->words[0], &err), *out = NULL;
  const char *passes = cli_get(a, "passes", "");
  if (g && *passes && pass_run(g, &out, passes, NULL, &o, NULL, NULL, &err) == TT_OK) {
    ir_graph_free(g);
    g = out;
  }
  char *text = g && !err.status ? ir_print(g) : NULL;
  if (text) cli_write(cli_get(a, "output", NULL), text, &err);
  else if (!err.status) tt_fail(&err, TT_NO_MEMORY, "error: no memory for the text\n  at %s\n  fix: free memory", a->words[0]);
  free(text);
  ir_graph_free(g);
  return err.status ? cli_fail(&err) : 0;
}

const cli_option cli_run_options[] = {
  {"input", "NAME=FILE.npy", "data of an input or param; once for each (params that are not given are zeros)"},
  {"output", "NAME=FILE.npy", "where an output goes; those without are printed"},
  {"backend", "jit|interp", "default jit"},
  {"threads", "N", "default: as many as this process may use"},
  {"cpu", "NAME", "x86-64-v2, x86-64-v3, x86-64-v4, x86-64-v4+bf16, x86-64-v4+amx or native"},
  {"skip", "a,b", "optional passes left out"},
  {NULL, NULL, NULL},
};

static void print_tensor(const char *name, tt_tensor *x) {
  tt_shape s = tt_tensor_shape(x);
  char type[128];
  int64_t count = tt_shape_count(&s);
  bool wide = tt_dtype_size(tt_tensor_dtype(x)) == 8;
  printf("%s: %s =", name, tt_type_text(tt_tensor_dtype(x), &s, type, sizeof type));
  for (int64_t i = 0; i < count && i < 1000; i++) {
    int64_t index[TT_MAX_RANK], rest = i;
    for (int d = s.rank - 1; d >= 0; d--) index[d] = rest % s.dim[d], rest /= s.dim[d];
    printf(wide ? " %.17g" : " %.9g", tt_tensor_at(x, index));
  }
  printf(count > 1000 ? " ... (%lld in all; --output %s=FILE.npy has them)\n" : "\n", (long long)count, name);
}

/* The FILE of `--option NAME=FILE` for this name, or NULL. */
static const char *file_for(const cli_args *a, const char *option, const char *name) {
  size_t n = strlen(name);
  for (int i = 0; i < a->n_given; i++)
    if (strcmp(a->given[i]->name, option) == 0 && strncmp(a->values[i], name, n) == 0 && a->values[i][n] == '=') return a->values[i] + n + 1;
  return NULL;
}

/* Every NAME=FILE of the option must name a slot of these kinds. */
static bool names_known(const cli_args *a, const rt_program *p, const char *option, bool outputs, tt_error *err) {
  for (int i = 0; i < a->n_given; i++) {
    if (strcmp(a->given[i]->name, option) != 0) continue;
    const char *equals = strchr(a->values[i], '=');
    bool known = false;
    for (uint32_t s = 0; equals && s < p->n_slots; s++) {
      const rt_slot *slot = &p->slots[s];
      bool fits = outputs ? slot->kind == RT_OUTPUT : slot->kind == RT_INPUT || slot->kind == RT_PARAM;
      known |= fits && slot->name && strlen(slot->name) == (size_t)(equals - a->values[i]) && strncmp(slot->name, a->values[i], equals - a->values[i]) == 0;
    }
    if (!known) {
      char have[512] = "";
      for (uint32_t s = 0; s < p->n_slots; s++) {
        const rt_slot *slot = &p->slots[s];
        bool fits = outputs ? slot->kind == RT_OUTPUT : slot->kind == RT_INPUT || slot->kind == RT_PARAM;
        size_t used = strlen(have);
        if (fits && slot->name) snprintf(have + used, sizeof have - used, "%s%s", used ? ", " : "", slot->name);
      }
      tt_fail(err, TT_INVALID, "error: the graph has no %s of that name\n  at --%s %s\n  fix: write --%s NAME=FILE.npy with one of: %s", outputs ? "output" : "input or param", option,
              a->values[i], option, have[0] ? have : "(it has none)");
      return false;
    }
  }
  return true;
}

static bool bind_slots(const cli_args *a, const rt_program *p, rt_instance *x, tt_error *err) {
  for (uint32_t i = 0; i < p->n_slots; i++) {
    const rt_slot *s = &p->slots[i];
    if (s->kind != RT_INPUT && s->kind != RT_PARAM) continue;
    const char *file = file_for(a, "input", s->name);
    tt_tensor *t = NULL, *dense = NULL;
    if (file) t = tt_npy_load(file, err);
    else if (s->kind == RT_PARAM) t = tt_tensor_new(s->dtype, &s->shape, err);
    else tt_fail(err, TT_INVALID, "error: no data for an input\n  at %%%s of the graph\n  fix: add --input %s=FILE.npy", s->name, s->name);
    if (t) dense = tt_tensor_dense(t, err);
    if (dense) rt_bind(x, s->name, dense, err);
    tt_tensor_free(t);
    tt_tensor_free(dense);
    if (err->status) return false;
  }
  return true;
}

int cli_run(const cli_args *a) {
  tt_error err = {0};
  if (a->n_words != 1) return cli_usage(a, "one file (or -)");
  const char *backend = cli_get(a, "backend", "jit");
  bool interp = strcmp(backend, "interp") == 0;
  int64_t threads;
  if (!cli_target(a) || !cli_int(a, "threads", 0, 0, &threads)) return 2;
  cg_options co = {.cpu = cli_get(a, "cpu", NULL)};
  cg_cpu cpu;
  ir_graph *g = NULL, *ready = NULL;
  rt_program *p = NULL;
  rt_team *team = NULL;
  rt_instance *x = NULL;
  if (cg_cpu_get(co.cpu, &cpu, &err) == TT_OK) g = read_graph(a->words[0], &err);
  pass_options o = {.vector_bytes = cpu.vector_bytes, .n_registers = cpu.n_registers, .skip = cli_get(a, "skip", NULL)};
  /* A dump of a later stage: what it still lacks. */
  uint32_t n_plan = 0;
  bool fused = g && g->n_kernels > 1, planned = fused && ir_kernel_get(g, 1, "kind", &n_plan), placed = planned && g->arena_bytes > 0;
  const char *passes = interp ? NULL : !fused ? NULL : !planned ? "schedule,memory" : !placed ? "memory" : "";
  bool wanted = interp ? !fused : !passes || *passes;
  if (g && wanted && pass_run(g, &ready, passes, interp ? "decompose" : NULL, &o, NULL, NULL, &err) == TT_OK) {
    ir_graph_free(g);
    g = ready;
  }
  if (g && !err.status) interp ? cg_interp(g, &co, &p, &err) : cg_jit(g, &co, &p, &err);
  if (p && names_known(a, p, "input", false, &err) && names_known(a, p, "output", true, &err)) team = rt_team_new((int)threads, &err);
  if (team) x = rt_instance_new(p, team, &err);
  if (x && bind_slots(a, p, x, &err) && rt_run(x, &err) == TT_OK)
    for (uint32_t i = 0; i < p->n_slots && !err.status; i++) {
      const rt_slot *s = &p->slots[i];
      if (s->kind != RT_OUTPUT) continue;
      tt_tensor *t = rt_bound(x, s->name);
      const char *file = file_for(a, "output", s->name);
      if (file) tt_npy_save(file, t, &err);
      else print_tensor(s->name, t);
    }
  rt_instance_free(x);
  rt_team_free(team);
  rt_program_free(p);
  ir_graph_free(g);
  return err.status ? cli_fail(&err) : 0;
}

static const char *types_text(int set, char *text, size_t size) {
  static const struct { int set; const char *name; } classes[] = {{TT_ANY, "any"}, {TT_NUM, "real, int"}, {TT_REAL, "real"}, {TT_BITS, "int, bool"}, {TT_INT, "int"}, {TT_UINT, "unsigned"}, {TT_BOOLEAN, "bool"}};
  for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
    if (classes[i].set == set) return classes[i].name;
  text[0] = 0;
  for (int t = 0; t < TT_N_DTYPES; t++)
    if (set >> t & 1) snprintf(text + strlen(text), size - strlen(text), "%s%s", text[0] ? ", " : "", tt_dtype_name(t));
  return text;
}

int cli_ops(const cli_args *a) {
  static const char *const kinds[] = {"leaf", "elementwise", "movement", "reduction", "contraction", "index", "control", "effect", "composite"};
  if (a->n_words) return cli_usage(a, "takes no argument");
  printf("# The language\n\nGenerated from ir/ops.def by `tinytorch ops`; its opening comment says what holds for all.\n\n");
  printf("| op | kind | arguments | types | attributes | meaning | gradient |\n| --- | --- | --- | --- | --- | --- | --- |\n");
  for (int op = 1; op < IR_N_OPS; op++) {
    const ir_op_info *o = &ir_ops[op];
    char attrs[256] = "", types[128], arity[16], gradients[512] = "";
    for (int i = 0; i < 8 && o->attrs[i].kind; i++) snprintf(attrs + strlen(attrs), sizeof attrs - strlen(attrs), "%s%s", i ? ", " : "", o->attrs[i].name);
    snprintf(arity, sizeof arity, o->arity < 0 ? "1..." : "%d", o->arity);
    for (int i = 0; i < o->arity && o->ew; i++) snprintf(gradients + strlen(gradients), sizeof gradients - strlen(gradients), "%s`%s`", i ? "; " : "", o->gradients[i]);
    printf("| %s | %s | %s | %s%s | %s | %s%s%s | %s |\n", o->name, kinds[o->kind], arity, types_text(o->takes, types, sizeof types), o->gives_bool ? " -> bool" : "",
           attrs, o->ew ? "`" : "", o->ew ? o->meaning : "", o->ew ? "`" : "", gradients);
  }
  return 0;
}
