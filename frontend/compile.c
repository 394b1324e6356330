/* compile.c: a traced graph becomes a program: the pipeline for the CPU at hand, then a backend. The interpreter takes the graph as
 * it stands before layout and fusion, which mean nothing to it. */
#include "frontend.h"

#include "../codegen/codegen.h"
#include "../passes/passes.h"

static bool pass_options_of(const tt_compile_options *o, bool interp, pass_options *p, tt_error *err) {
  cg_cpu cpu;
  pass_tunings *tunings = NULL;
  if (cg_cpu_get(o->cpu, &cpu, err) != TT_OK || (!interp && tuned_for(o->tuned, &cpu, &tunings, err) != TT_OK)) return false;
  *p = (pass_options){.train = o->train, .optimizer = o->optimizer ? o->optimizer : "sgd", .hyper = o->hyper, .clip_norm = o->clip_norm,
                      .gradients = o->gradients, .vector_bytes = cpu.vector_bytes, .n_registers = cpu.n_registers, .skip = o->skip, .tunings = tunings};
  for (int i = 0; i < 8 && o->groups[i].pattern; i++, p->n_groups++) {
    p->groups[i].pattern = o->groups[i].pattern;
    p->groups[i].optimizer = o->groups[i].optimizer;
    p->groups[i].hyper = o->groups[i].hyper;
  }
  return true;
}

tt_status tt_compile(const ir_graph *g, const tt_compile_options *options, rt_program **program, tt_error *err) {
  const tt_compile_options none = {0}, *o = options ? options : &none;
  tt_error own = {0};
  if (!err) err = &own;
  pass_options p;
  ir_graph *ready;
  *program = NULL;
  bool interp = o->backend && !strcmp(o->backend, "interp");
  if (o->backend && !interp && strcmp(o->backend, "jit"))
    return tt_fail(err, TT_INVALID, "error: there is no backend \"%s\"\n  at tt_compile of @%s\n  fix: use jit or interp", o->backend, g->name);
  if (!pass_options_of(o, interp, &p, err)) return err->status;
  if (p.tunings && !p.tunings->mine && o->warn) {
    char text[4300];
    snprintf(text, sizeof text, "the file of tuned plans has none of this CPU, %s: the cost model's are used\n  at %.4000s\n  fix: run tinytorch tune on this CPU, or leave the file out", p.tunings->cpu, o->tuned);
    o->warn(o->user, text);
  }
  tt_status status = pass_run(g, &ready, NULL, interp ? "tidy" : NULL, &p, o->watch, o->user, err);
  cg_options c = {.cpu = o->cpu, .n_threads = o->n_threads, .watch = o->watch, .kernel = o->kernel, .warn = o->warn, .user = o->user, .stop = o->stop};
  if (status == TT_OK) {
    status = interp ? cg_interp(ready, &c, program, err) : cg_jit(ready, &c, program, err);
    ir_graph_free(ready);
  }
  if (status == TT_OK && p.tunings) (*program)->tuned = p.tunings->used;
  pass_tunings_free(p.tunings);
  return status;
}
