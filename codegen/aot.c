/* aot.c: programs into an object file: the images of their kernels, which are the JIT's own, and their tables as they stand in memory, with every
 * pointer made an address for the linker. Functions of the model's name hand the whole to the runtime's.
 *
 *     .text          images; cnn_new: lea cnn's rt_model, jmp rt_compiled_new; cnn_step: jmp rt_compiled_step; ...
 *     .rodata        texts, constants, argument numbers
 *     .data.rel.ro   rt_model -> rt_variant[] -> rt_program -> steps, slots */
#include "aot.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../runtime/aot.h"
#include "code.h"
#include "elf.h"

typedef struct {
  elf *e;
  const char *name;
  tt_error *err;
  bool failed;
} writer;

enum { NONE = 0 };                             /* a program's place is never the beginning of the table: the model stands there */

static void put_text(writer *w, size_t at, const char *text) {
  if (text) elf_address(w->e, at, ELF_CONST, elf_put(w->e, ELF_CONST, text, strlen(text) + 1, 1));
}

static bool put_code(writer *w, const cg_kernels *ks, const rt_image *images, size_t *entry, const char *cpu) {
  for (int i = 0; i < ks->n_kernels; i++) {
    char name[300];
    size_t at = elf_put(w->e, ELF_TEXT, images[i].data, images[i].bytes, RT_IMAGE_ALIGN);
    entry[i] = at + images[i].entry;
    snprintf(name, sizeof name, "%.60s.%.30s.%.200s", w->name, cpu, ks->kernels[i].loops->name);
    elf_symbol(w->e, name, ELF_TEXT, entry[i], images[i].bytes - images[i].entry, true, false);
  }
  return true;
}

static const char *function_name(rt_kernel *f) { return f == rt_argsort ? "rt_argsort" : f == rt_copy ? "rt_copy" : NULL; }

/* The kernel's number + 1 stands for its address in the program that comes in. */
static void put_steps(writer *w, const rt_program *p, const size_t *entry, int n_kernels, size_t base) {
  for (uint32_t i = 0; i < p->n_steps; i++) {
    const rt_step *s = &p->steps[i];
    size_t at = base + i * sizeof *s, kernel = (size_t)(uintptr_t)s->run;
    if (kernel >= 1 && kernel <= (size_t)n_kernels) elf_address(w->e, at + offsetof(rt_step, run), ELF_TEXT, entry[kernel - 1]);
    else if (function_name(s->run)) elf_address_of(w->e, at + offsetof(rt_step, run), function_name(s->run));
    else w->failed = true;
    if (s->context_bytes) elf_address(w->e, at + offsetof(rt_step, context), ELF_CONST, elf_put(w->e, ELF_CONST, s->context, s->context_bytes, 64));
    else if (s->context == &rt_function_table) elf_address_of(w->e, at + offsetof(rt_step, context), "rt_function_table");
    else if (s->context) w->failed = true;
    put_text(w, at + offsetof(rt_step, name), s->name);
    put_text(w, at + offsetof(rt_step, origin), s->origin);
  }
}

static void put_slots(writer *w, const rt_program *p, size_t base) {
  for (uint32_t i = 0; i < p->n_slots; i++) {
    const rt_slot *s = &p->slots[i];
    size_t at = base + i * sizeof *s;
    put_text(w, at + offsetof(rt_slot, name), s->name);
    if (s->data) elf_address(w->e, at + offsetof(rt_slot, data), ELF_CONST, elf_put(w->e, ELF_CONST, s->data, s->bytes + 1, 64));
  }
}

/* A struct as it stands, its pointers zeroed: the linker fills them in. */
#define PUT(w, type, array, n, ...) put_table(w, array, sizeof(type), n, (size_t[]){__VA_ARGS__}, sizeof((size_t[]){__VA_ARGS__}) / sizeof(size_t))
static size_t put_table(writer *w, const void *array, size_t size, size_t n, const size_t *pointers, size_t n_pointers) {
  char *copy = malloc(size * n + 1);
  if (!copy) { w->failed = true; return 0; }
  memcpy(copy, array, size * n);
  for (size_t i = 0; i < n; i++)
    for (size_t k = 0; k < n_pointers; k++) memset(copy + i * size + pointers[k], 0, sizeof(void *));
  size_t at = elf_put(w->e, ELF_TABLE, copy, size * n, 16);
  free(copy);
  return at;
}

static size_t put_program(writer *w, const rt_program *p, const size_t *entry, int n_kernels) {
  size_t steps = PUT(w, rt_step, p->steps, p->n_steps, offsetof(rt_step, run), offsetof(rt_step, context), offsetof(rt_step, name), offsetof(rt_step, origin));
  size_t slots = PUT(w, rt_slot, p->slots, p->n_slots, offsetof(rt_slot, name), offsetof(rt_slot, data));
  size_t args = elf_put(w->e, ELF_CONST, p->args, p->n_args * sizeof *p->args, 16);
  size_t loops = elf_put(w->e, ELF_CONST, p->loops, p->n_loops * sizeof *p->loops, 16), moves = elf_put(w->e, ELF_CONST, p->moves, p->n_moves * sizeof *p->moves, 16);
  size_t at = PUT(w, rt_program, p, 1, offsetof(rt_program, steps), offsetof(rt_program, slots), offsetof(rt_program, args), offsetof(rt_program, loops), offsetof(rt_program, moves),
                  offsetof(rt_program, release), offsetof(rt_program, owner));
  put_steps(w, p, entry, n_kernels, steps);
  put_slots(w, p, slots);
  elf_address(w->e, at + offsetof(rt_program, steps), ELF_TABLE, steps);
  elf_address(w->e, at + offsetof(rt_program, slots), ELF_TABLE, slots);
  elf_address(w->e, at + offsetof(rt_program, args), ELF_CONST, args);
  if (p->n_loops) elf_address(w->e, at + offsetof(rt_program, loops), ELF_CONST, loops);
  if (p->n_moves) elf_address(w->e, at + offsetof(rt_program, moves), ELF_CONST, moves);
  return at;
}

/* One graph, compiled: its place in the table, or NONE. */
static size_t put_graph(writer *w, const ir_graph *g, const cg_cpu *cpu, const char *cpu_name, const cg_options *o) {
  cg_kernels ks;
  size_t at = NONE;
  if (ir_verify(g, "scheduling", w->err) != TT_OK || !cg_kernels_of(g, cpu, o->n_threads, false, o->stop, &ks, w->err)) return NONE;
  size_t n = (size_t)ks.n_kernels + 1, *entry = calloc(n, sizeof *entry);
  rt_image *images = calloc(n, sizeof *images);
  rt_kernel **symbols = calloc(n, sizeof *symbols);
  rt_program *p = NULL;
  for (int i = 0; symbols && i < ks.n_kernels; i++) symbols[i] = (rt_kernel *)(uintptr_t)(i + 1);
  if (!entry || !images || !symbols) tt_fail(w->err, TT_NO_MEMORY, "error: no memory to compile @%s\n  at %d kernels\n  fix: make the model smaller", g->name, ks.n_kernels);
  else if (cg_images(ks.kernels, ks.n_kernels, cpu, o, images, w->err) == TT_OK && cg_program_of(&ks, symbols, NULL, &p, w->err) == TT_OK && put_code(w, &ks, images, entry, cpu_name))
    at = put_program(w, p, entry, ks.n_kernels);
  if (w->failed) tt_fail(w->err, TT_INTERNAL, "error: a step of @%s calls what an object file cannot name\n  at codegen/aot.c\n  fix: report this", g->name);
  rt_program_free(p);
  for (int i = 0; images && i < ks.n_kernels; i++) free(images[i].data);
  free(entry), free(images), free(symbols);
  cg_kernels_free(&ks);
  return w->err->status == TT_OK ? at : NONE;
}

/* lea rdx, [model] (the third argument); jmp: the function of the runtime. */
static void put_functions(writer *w, bool trains) {
  static const struct { const char *name; bool model, trains; } functions[] = {{"new", true, false}, {"free", false, false}, {"load", false, false}, {"save", false, false},
    {"step", false, true}, {"seed", false, true}, {"predict", false, false}, {"params", false, false}, {"cpu", false, false}};
  for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
    static const uint8_t lea[] = {0x48, 0x8d, 0x15, 0, 0, 0, 0}, jump[] = {0xe9, 0, 0, 0, 0};
    if (functions[i].trains && !trains) continue;
    char name[200], target[64];
    size_t at = elf_put(w->e, ELF_TEXT, NULL, 0, 16), begin = at;
    if (functions[i].model) {
      at = elf_put(w->e, ELF_TEXT, lea, sizeof lea, 1);
      elf_distance(w->e, at + 3, ELF_TABLE, 0);
    }
    at = elf_put(w->e, ELF_TEXT, jump, sizeof jump, 1);
    snprintf(target, sizeof target, "rt_compiled_%s", functions[i].name);
    elf_distance_of(w->e, at + 1, target);
    snprintf(name, sizeof name, "%.150s_%s", w->name, functions[i].name);
    elf_symbol(w->e, name, ELF_TEXT, begin, at + sizeof jump - begin, true, true);
  }
}

static void put_state(writer *w, const char *const *state, uint32_t n) {
  static const void *const empty[1];
  size_t at = elf_put(w->e, ELF_TABLE, NULL, n * sizeof(void *), 16);
  for (uint32_t i = 0; i < n; i++) put_text(w, at + i * sizeof *empty, state[i]);
  elf_address(w->e, offsetof(rt_model, state), ELF_TABLE, at);
}

static size_t put_variant(writer *w, size_t at, const cg_variant *v, const cg_options *o) {
  const char *name = v->cpu ? v->cpu : "native";
  cg_cpu cpu;
  if (cg_cpu_target(v->cpu, &cpu, w->err) != TT_OK) return NONE;
  rt_variant r = {.level = (uint32_t)cpu.level};
  if (!strcmp(cpu.name, "native")) rt_cpu_features(r.needs);
  else cg_cpu_needs(&cpu, r.needs), name = cpu.name;
  elf_poke(w->e, at, &r, sizeof r);
  put_text(w, at + offsetof(rt_variant, cpu), name);
  cg_options own = *o;
  own.cpu = v->cpu;
  const ir_graph *graphs[2] = {v->step, v->predict};
  static const size_t places[2] = {offsetof(rt_variant, step), offsetof(rt_variant, predict)};
  for (int i = 0; i < 2; i++) {
    size_t p = graphs[i] ? put_graph(w, graphs[i], &cpu, name, &own) : NONE;
    if (graphs[i] && p == NONE) return NONE;
    if (graphs[i]) elf_address(w->e, at + places[i], ELF_TABLE, p);
  }
  return at;
}

tt_status cg_object(const char *name, const cg_variant *variants, int n, const char *const *state, int n_state, const char *path, const cg_options *options, tt_error *err) {
  const cg_options none = {0}, *o = options ? options : &none;
  tt_error own = {0};
  if (!err) err = &own;
  writer w = {.e = elf_new(err), .name = name, .err = err};
  if (!w.e) return err->status;
  rt_model m = {.version = RT_MODEL_VERSION, .n_variants = (uint32_t)n, .n_state = (uint32_t)n_state};
  elf_put(w.e, ELF_TABLE, &m, sizeof m, 64);             /* at 0 */
  size_t list = elf_put(w.e, ELF_TABLE, NULL, (size_t)n * sizeof(rt_variant), 16);
  put_text(&w, offsetof(rt_model, name), name);
  elf_address(w.e, offsetof(rt_model, variants), ELF_TABLE, list);
  put_state(&w, state, (uint32_t)n_state);
  bool ok = true;
  for (int i = 0; i < n && ok; i++) ok = put_variant(&w, list + (size_t)i * sizeof(rt_variant), &variants[i], o) != NONE;
  if (ok) put_functions(&w, variants[0].step != NULL);
  tt_status status = ok ? elf_write(w.e, path) : err->status;
  elf_free(w.e);
  return status;
}
