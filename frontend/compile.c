/* compile.c: a traced graph becomes a program: the pipeline for the CPU at hand, then a backend. The interpreter takes the graph as
 * it stands before layout and fusion, which mean nothing to it. */
#include "frontend.h"

#include "../codegen/keep.h"
#include "../passes/passes.h"

#ifdef __GLIBC__
#include <malloc.h>
#define GIVE_BACK() malloc_trim(0)        /* a compilation needs some MiB that nothing asks for again */
#else
#define GIVE_BACK() ((void)0)
#endif

static bool products_of(const char *name, pass_options *p, tt_error *err) {
  static const char *const names[] = {[PASS_F32] = "f32", [PASS_BF16] = "bf16", [PASS_BF16X6] = "bf16x6"};
  p->products = PASS_F32;
  while (name && p->products < PASS_BF16X6 && strcmp(names[p->products], name)) p->products++;
  if (!name || !strcmp(names[p->products], name)) return true;
  return tt_fail(err, TT_INVALID, "error: there are no products of \"%s\"\n  at the options of a compilation\n  fix: use f32, bf16 or bf16x6", name), false;
}

static bool pass_options_of(const tt_compile_options *o, bool interp, bool runs_here, cg_cpu *cpu, pass_options *p, tt_error *err) {
  pass_tunings *tunings = NULL;
  if ((runs_here ? cg_cpu_get : cg_cpu_target)(o->cpu, cpu, err) != TT_OK || (!interp && tuned_for(o->tuned, cpu, &tunings, err) != TT_OK)) return false;
  *p = (pass_options){.train = o->train, .optimizer = o->optimizer ? o->optimizer : "sgd", .hyper = o->hyper, .clip_norm = o->clip_norm,
                      .gradients = o->gradients, .accumulate = o->accumulate, .collect = o->collect, .no_decay_norm_bias = o->no_decay_norm_bias, .ema = o->ema, .bf16 = cpu->bf16 || cpu->amx, .vector_bytes = cpu->vector_bytes, .n_registers = cpu->n_registers, .skip = o->skip, .tunings = tunings};
  if (!products_of(o->products, p, err)) return pass_tunings_free(tunings), false;
  char note[4300];
  if (o->warn && tuned_note(tunings, o->tuned, note, sizeof note)) o->warn(o->user, note);
  for (int i = 0; i < 8 && o->groups[i].pattern; i++, p->n_groups++) {
    p->groups[i].pattern = o->groups[i].pattern;
    p->groups[i].optimizer = o->groups[i].optimizer;
    p->groups[i].hyper = o->groups[i].hyper;
  }
  return true;
}

/* The passes behind which kernels and their plans are what they are. */
#define PLACING "freeze,recompute,memory"

/* The pipeline under a budget. What a program needs beside its arena is known when its kernels are lowered; so it is planned without a limit
 * first, and once more where the limit makes other kernels. last: as in pass_run. */
static tt_status plan_within(const ir_graph *g, const tt_compile_options *o, const char *last, pass_options *p, ir_graph **ready, tt_error *err) {
  ir_graph *scheduled = *ready = NULL;
  rt_memory m = {0};
  const char *skip = p->skip;
  char without[400];
  int threads = o->n_threads ? o->n_threads : rt_team_default_size();
  tt_status status = TT_OK;
  bool fits = false;
  snprintf(without, sizeof without, "%s%sprepack", skip ? skip : "", skip && *skip ? "," : "");
  for (int packed = !p->train; packed >= 0 && status == TT_OK && !fits; packed--) {      /* weights packed once are kept twice: only where they fit */
    ir_graph_free(*ready), ir_graph_free(scheduled);
    *ready = scheduled = NULL;
    p->skip = packed ? skip : without;
    status = pass_run(g, &scheduled, NULL, "tune", p, o->watch, o->user, err);
    if (status == TT_OK) status = pass_run(scheduled, ready, PLACING, NULL, p, NULL, NULL, err);
    if (status == TT_OK) status = cg_memory(*ready, o->cpu, threads, &m, err);
    fits = status == TT_OK && m.total <= (size_t)o->memory_budget;
  }
  fits = false;
  for (int round = 0; round < 4 && status == TT_OK && !fits; round++) {
    if ((status = cg_memory(*ready, o->cpu, threads, &m, err)) != TT_OK) break;
    fits = m.total <= (size_t)o->memory_budget;
    int64_t fixed = (int64_t)(m.total - (size_t)(*ready)->arena_bytes);
    if (fixed > p->memory_fixed) p->memory_fixed = fixed;
    if (!fits || round) p->memory_budget = o->memory_budget;
    if (fits && !o->watch) break;
    ir_graph_free(*ready);
    *ready = NULL;
    status = pass_run(scheduled, ready, PLACING, NULL, p, fits ? o->watch : NULL, o->user, err);
  }
  if (status == TT_OK && !fits)
    status = tt_fail(err, TT_INVALID, "error: @%s takes %zu bytes, the budget is %lld\n  at the plan of its memory\n  fix: allow more, or do not skip the pass recompute", g->name, m.total, (long long)o->memory_budget);
  if (status == TT_OK && last && strcmp(last, "memory")) {
    bool early = !strstr(PLACING, last);
    ir_graph_free(*ready);
    *ready = NULL;
    status = pass_run(early ? g : scheduled, ready, early ? NULL : PLACING, last, p, NULL, NULL, err);
  }
  p->skip = skip;
  if (status != TT_OK) ir_graph_free(*ready), *ready = NULL;
  ir_graph_free(scheduled);
  return status;
}

static void put_text(FILE *f, const char *text) { text ? fprintf(f, " %zu:%s", strlen(text), text) : fprintf(f, " -"); }

/* All options that decide what the program is, as a text; malloc'ed, NULL: no memory. */
static char *how_of(const tt_compile_options *o, const pass_options *p) {
  char *text = NULL, *tuned = p->tunings ? pass_tunings_text(p->tunings) : NULL;
  size_t size;
  FILE *f = p->tunings && !tuned ? NULL : open_memstream(&text, &size);
  if (f) {
    fprintf(f, "%d %d %d %d %d %d %a %a %lld %d", p->train, p->products, p->gradients, p->accumulate, p->collect, p->no_decay_norm_bias, p->ema, p->clip_norm, (long long)o->memory_budget, !o->memory_budget ? 0 : o->n_threads ? o->n_threads : rt_team_default_size());
    put_text(f, p->optimizer), put_text(f, p->hyper), put_text(f, p->skip), put_text(f, tuned);
    for (int i = 0; i < p->n_groups; i++) put_text(f, p->groups[i].pattern), put_text(f, p->groups[i].optimizer), put_text(f, p->groups[i].hyper);
    if (fclose(f)) free(text), text = NULL;
  }
  free(tuned);
  return text;
}

tt_status tt_compile(const ir_graph *g, const tt_compile_options *options, rt_program **program, tt_error *err) {
  const tt_compile_options none = {0}, *o = options ? options : &none;
  tt_error own = {0};
  if (!err) err = &own;
  pass_options p;
  ir_graph *ready;
  cg_cpu cpu;
  cg_cache cache;
  rt_key key;
  *program = NULL;
  bool interp = o->backend && !strcmp(o->backend, "interp");
  if (o->backend && !interp && strcmp(o->backend, "jit"))
    return tt_fail(err, TT_INVALID, "error: there is no backend \"%s\"\n  at tt_compile of @%s\n  fix: use jit or interp", o->backend, g->name);
  if (o->accumulate < 0 || (o->collect && o->accumulate < 2))
    return tt_fail(err, TT_INVALID, "error: a program for %d batches an update%s\n  at tt_compile of @%s\n  fix: give accumulate 2 or more, or 0 and no collect", o->accumulate, o->collect ? " that collects" : "", g->name);
  if (!(o->ema >= 0 && o->ema < 1)) return tt_fail(err, TT_INVALID, "error: a running mean of the weights with the decay %g\n  at tt_compile of @%s\n  fix: give ema a number below 1, such as 0.999, or 0 for none", o->ema, g->name);
  if (o->memory_budget < 0 || (o->memory_budget && interp))
    return tt_fail(err, TT_INVALID, "error: %s\n  at tt_compile of @%s\n  fix: give memory_budget in bytes, 0 for no limit, and the backend jit", interp ? "the interpreter keeps to no memory budget" : "a memory budget below 0", g->name);
  if (!pass_options_of(o, interp, true, &cpu, &p, err)) return err->status;
  char *how = interp || g->error.status ? NULL : how_of(o, &p);
  cg_options c = {.cpu = o->cpu, .n_threads = o->n_threads, .watch = o->watch, .kernel = o->kernel, .warn = o->warn, .user = o->user, .stop = o->stop};
  if (how) {
    cg_cache_open(&cache);
    key = cg_keep_key(g, &cpu, how);
    c.cache = &cache, c.keep = &key;
    free(how);
    if (!o->watch && cg_keep_get(&cache, &key, &c, program)) return pass_tunings_free(p.tunings), TT_OK;      /* who watches the passes wants to see them */
  }
  cg_llvm_early early = {0};
  if (!interp && (o->n_threads ? o->n_threads : cg_default_threads()) > 1) cg_llvm_begin(&early);
  tt_status status = o->memory_budget ? plan_within(g, o, NULL, &p, &ready, err) : pass_run(g, &ready, NULL, interp ? "autocast" : NULL, &p, o->watch, o->user, err);
  if (p.tunings) c.tuned = p.tunings->used;
  if (status == TT_OK) {
    status = interp ? cg_interp(ready, &c, program, err) : cg_jit(ready, &c, program, err);
    ir_graph_free(ready);
  }
  cg_llvm_end(&early);
  pass_tunings_free(p.tunings);
  GIVE_BACK();
  return status;
}

tt_status compile_scheduled(const ir_graph *g, const tt_compile_options *o, const char *last, ir_graph **ready, tt_error *err) {
  pass_options p;
  cg_cpu cpu;
  *ready = NULL;
  if (!pass_options_of(o, false, false, &cpu, &p, err)) return err->status;
  tt_status status = o->memory_budget ? plan_within(g, o, last, &p, ready, err) : pass_run(g, ready, NULL, last, &p, o->watch, o->user, err);
  pass_tunings_free(p.tunings);
  return status;
}
