/* keep.c: a compiled program as one entry of the cache, so that a program that was compiled before runs neither passes nor lowering nor LLVM.
 *
 * It is found by a hash of the traced graph, origins and constants included, and of whatever else decides: the caller's options, the CPU, and all sources of
 * the compiler. The entry is the program's table as it stands in memory, a pointer being the distance from the entry's beginning; kernels are named by their
 * own keys and stay entries of their own, which programs share.
 *
 *     head | rt_step[] rt_slot[] rt_arg[] rt_loop[] rt_move[] | kernels: key, name | texts, contexts and constants
 *
 * An entry that lacks a kernel is no entry: everything is compiled as if it were not there. */
#include "keep.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "code.h"
#include "compiler_id.h"           /* made by CMake: TT_COMPILER_ID, of all sources that a program depends on */

enum { ALIGN = 64, COPY = 1, SORT, BLAS, FIRST_KERNEL };      /* what a step calls: C functions by these numbers, kernels from FIRST_KERNEL on */

typedef struct {
  rt_program p;                    /* its tables are places in the entry */
  uint64_t kernels;                /* place of kept_kernel[n_kernels] */
  uint32_t n_kernels;
  bool lacks_blas;                 /* OpenBLAS would have been used if it had been there */
} head;
typedef struct { rt_key key; uint64_t name; } kept_kernel;

/* ---- bytes that grow */

typedef struct { char *data; size_t n, cap; bool failed; } bytes;

static size_t put(bytes *b, const void *data, size_t n, size_t align) {
  size_t at = (b->n + align - 1) / align * align;
  if (at + n > b->cap) {
    size_t cap = at + n + b->cap + 4096;
    char *more = b->failed ? NULL : realloc(b->data, cap);
    if (!more) { b->failed = true; return 0; }
    b->data = more, b->cap = cap;
  }
  memset(b->data + b->n, 0, at - b->n);
  if (n) memcpy(b->data + at, data, n);
  b->n = at + n;
  return at;
}

static void put_number(bytes *b, int64_t v) { put(b, &v, sizeof v, 1); }

static size_t put_text(bytes *b, const char *text) { return text ? put(b, text, strlen(text) + 1, 1) : 0; }

/* ---- the key */

static void put_words(bytes *b, const ir_graph *g, const ir_node *n) {
  const int64_t *w = n->words;
  put_number(b, n->n_words);
  for (int i = 0; i < 8 && ir_ops[n->op].attrs[i].kind != IR_ATTR_END; i++) {
    uint8_t kind = ir_ops[n->op].attrs[i].kind;
    int64_t count = kind == IR_ATTR_INTS ? 1 + *w : 1;
    if (kind == IR_ATTR_STR) put_text(b, (const char *)(intptr_t)*w);
    else if (kind == IR_ATTR_DATA) {
      rt_key data = rt_key_of(g->blobs[*w].data, g->blobs[*w].bytes);
      put(b, &data, sizeof data, 1);
    } else put(b, w, (size_t)count * sizeof *w, 1);
    w += count;
  }
}

static void put_origins(bytes *b, const ir_graph *g, uint32_t origin) {
  for (; origin; origin = g->origins[origin].next) {
    const ir_origin *o = &g->origins[origin];
    put_number(b, o->line), put_text(b, o->file ? o->file : ""), put_text(b, o->scope ? o->scope : "");
  }
  put_number(b, -1);
}

static void put_graph(bytes *b, const ir_graph *g) {
  put_text(b, g->name);
  for (ir_ref r = 1; r < g->n_nodes; r++) {
    const ir_node *n = ir_at(g, r);
    put_number(b, (int64_t)n->op << 32 | n->dtype << 16 | n->rank);
    put(b, n->dim, n->rank * sizeof *n->dim, 1);
    put_number(b, n->n_args), put(b, n->args, n->n_args * sizeof *n->args, 1);
    put_words(b, g, n);
    put_origins(b, g, n->origin);
  }
  for (uint32_t i = 0; i < g->n_outputs; i++) put_number(b, g->outputs[i].value), put_text(b, g->outputs[i].name ? g->outputs[i].name : "");
  for (uint32_t i = 0; i < g->n_effects; i++) put_number(b, g->effects[i]);
  put_number(b, g->n_functions);
  for (uint32_t i = 0; i < g->n_functions; i++) put_graph(b, g->functions[i]);
}

rt_key cg_keep_key(const ir_graph *g, const cg_cpu *cpu, const char *how) {
  bytes b = {0};
  char text[700];
  put_text(&b, "program " TT_COMPILER_ID);
  put_text(&b, cg_cpu_identity(cpu, text, sizeof text));
  put_text(&b, cg_cpu_text(cpu, text, sizeof text));
  put_number(&b, cpu->l1d), put_number(&b, cpu->l2), put_number(&b, cpu->l3);
  put_text(&b, how);
  put_graph(&b, g);
  rt_key key = rt_key_of(b.data, b.failed ? 0 : b.n);
  free(b.data);
  return key;
}

/* ---- writing */

static uintptr_t function_number(const rt_step *s, const cg_kernels *ks, rt_kernel *const *symbols) {
  if (s->run == rt_copy) return COPY;
  if (s->run == rt_argsort) return SORT;
  if (s->run == cg_blas_kernel) return BLAS;
  for (int i = 0; i < ks->n_kernels; i++)
    if (symbols[i] == s->run) return FIRST_KERNEL + (uintptr_t)i;
  return 0;
}

/* A place in the entry as a pointer of a table; 0 is NULL: the head stands there. */
static const void *place(size_t at) { return (const void *)(uintptr_t)at; }

static void put_steps(bytes *b, const rt_program *p, const cg_kernels *ks, rt_kernel *const *symbols) {
  size_t base = put(b, p->steps, p->n_steps * sizeof *p->steps, ALIGN);
  for (uint32_t i = 0; i < p->n_steps && !b->failed; i++) {
    rt_step s = p->steps[i];
    uintptr_t number = function_number(&s, ks, symbols);
    if (!number) b->failed = true;
    s.run = (rt_kernel *)number;
    s.context = place(s.context_bytes ? put(b, s.context, s.context_bytes, ALIGN) : 0);
    s.name = place(put_text(b, s.name)), s.origin = place(put_text(b, s.origin));
    if (!b->failed) memcpy(b->data + base + i * sizeof s, &s, sizeof s);
  }
  if (!b->failed) ((head *)(void *)b->data)->p.steps = place(base);
}

static void put_slots(bytes *b, const rt_program *p) {
  size_t base = put(b, p->slots, p->n_slots * sizeof *p->slots, ALIGN);
  for (uint32_t i = 0; i < p->n_slots && !b->failed; i++) {
    rt_slot s = p->slots[i];
    s.name = place(put_text(b, s.name));
    s.data = place(s.data ? put(b, s.data, s.bytes + 1, ALIGN) : 0);       /* an empty constant has an address too */
    if (!b->failed) memcpy(b->data + base + i * sizeof s, &s, sizeof s);
  }
  if (!b->failed) ((head *)(void *)b->data)->p.slots = place(base);
}

static bool lacks_blas(const cg_kernels *ks) {
  ir_ref row;
  for (uint32_t i = 0; i < ks->n_regions; i++)
    if (ks->which[i] >= 0 && cg_kernel_kind(ks->graphs[i], ks->regions[i]) == CG_KIND_CONTRACT && cg_blas_could(ks->graphs[i], ks->regions[i], &row)) return true;
  return false;
}

void cg_keep_put(cg_cache *c, const rt_key *key, const rt_program *p, const cg_kernels *ks, const cg_cpu *cpu, rt_kernel *const *symbols) {
  if (!c->folder[0]) return;
  bytes b = {0};
  head h = {.p = *p, .n_kernels = (uint32_t)ks->n_kernels, .lacks_blas = lacks_blas(ks)};
  h.p.release = NULL, h.p.owner = NULL;
  put(&b, &h, sizeof h, ALIGN);
  put_steps(&b, p, ks, symbols);
  put_slots(&b, p);
  size_t args = put(&b, p->args, p->n_args * sizeof *p->args, ALIGN), loops = put(&b, p->loops, p->n_loops * sizeof *p->loops, ALIGN), moves = put(&b, p->moves, p->n_moves * sizeof *p->moves, ALIGN);
  size_t kernels = put(&b, NULL, 0, ALIGN);
  for (int i = 0; i < ks->n_kernels; i++) {
    kept_kernel k = {.key = cg_cache_key(ks->kernels[i].text, cpu)};
    put(&b, &k, sizeof k, 1);
  }
  for (int i = 0; i < ks->n_kernels && !b.failed; i++) {
    size_t name = put_text(&b, ks->kernels[i].loops->name);
    if (!b.failed) ((kept_kernel *)(void *)(b.data + kernels))[i].name = name;
  }
  if (!b.failed) {
    ((head *)(void *)b.data)->p.args = place(args), ((head *)(void *)b.data)->p.loops = place(loops), ((head *)(void *)b.data)->p.moves = place(moves);
    ((head *)(void *)b.data)->kernels = kernels;
    char about[RT_IMAGE_ABOUT];
    snprintf(about, sizeof about, "program %.30s %s", ks->g->name, cpu->name);
    if (b.n <= c->limit / 16 && b.n <= RT_IMAGE_MAX) cg_cache_put(c, key, about, &(rt_image){b.data, b.n, 0});
    cg_cache_trim(c);
  }
  free(b.data);
}

/* ---- reading */

typedef struct {
  rt_program p;
  char *data; size_t size;         /* the entry, its pointers made addresses */
  rt_code *code;
} kept;

static void drop(kept *k) {
  if (!k) return;
  rt_code_free(k->code);
  free(k->data);
  free(k);
}
static void release(rt_program *p) { drop((kept *)p); }

/* The address of `n` bytes at a place; NULL where it lies outside. */
static void *address(const kept *k, const void *at, size_t n) {
  size_t place = (size_t)(uintptr_t)at;
  return place < k->size && n <= k->size - place ? k->data + place : NULL;
}

static bool text(const kept *k, const char **at) {
  if (!*at) return true;
  char *begin = address(k, *at, 1);
  *at = begin;
  return begin && memchr(begin, 0, k->size - (size_t)(begin - k->data));
}

static bool link_steps(kept *k, rt_kernel *const *symbols, uint32_t n_kernels) {
  rt_step *steps = address(k, k->p.steps, k->p.n_steps * sizeof *steps);
  k->p.steps = steps;
  for (uint32_t i = 0; steps && i < k->p.n_steps; i++) {
    rt_step *s = &steps[i];
    uintptr_t number = (uintptr_t)s->run;
    if (!number || number >= FIRST_KERNEL + n_kernels || !text(k, &s->name) || !text(k, &s->origin)) return false;
    s->run = number == COPY ? rt_copy : number == SORT ? rt_argsort : number == BLAS ? cg_blas_kernel : symbols[number - FIRST_KERNEL];
    void *context = s->context_bytes ? address(k, s->context, s->context_bytes) : NULL;
    if (s->context_bytes && !context) return false;
    if (number == BLAS && !cg_blas_bind(context)) return false;
    s->context = s->context_bytes ? context : (const void *)&rt_function_table;
  }
  return steps && k->p.n_once <= k->p.n_steps;
}

static bool link_slots(kept *k) {
  rt_slot *slots = address(k, k->p.slots, k->p.n_slots * sizeof *slots);
  k->p.slots = slots;
  for (uint32_t i = 0; slots && i < k->p.n_slots; i++) {
    rt_slot *s = &slots[i];
    if (!text(k, &s->name) || (s->data && !(s->data = address(k, s->data, s->bytes + 1)))) return false;
  }
  k->p.args = address(k, k->p.args, k->p.n_args * sizeof *k->p.args);
  k->p.loops = address(k, k->p.loops, k->p.n_loops * sizeof *k->p.loops), k->p.moves = address(k, k->p.moves, k->p.n_moves * sizeof *k->p.moves);
  return slots && k->p.args && (k->p.loops || !k->p.n_loops) && (k->p.moves || !k->p.n_moves);
}

/* Code of all kernels, from their own entries. */
static bool load_kernels(kept *k, cg_cache *c, const head *h, const kept_kernel *kernels, rt_kernel **symbols) {
  rt_image *images = calloc(h->n_kernels + 1u, sizeof *images);
  const char **names = calloc(h->n_kernels + 1u, sizeof *names);
  bool ok = images && names;
  int bad = c->bad;
  for (uint32_t i = 0; ok && i < h->n_kernels; i++) {
    names[i] = (const char *)(uintptr_t)kernels[i].name;
    ok = text(k, &names[i]) && cg_cache_get(c, &kernels[i].key, &images[i]);
  }
  c->bad = bad;                    /* the compilation that follows says what is wrong with a kernel */
  ok = ok && (k->code = rt_code_load(images, (int)h->n_kernels, symbols, NULL));
  if (ok) cg_perf_map(names, images, (int)h->n_kernels, symbols);
  for (uint32_t i = 0; images && i < h->n_kernels; i++) free(images[i].data);
  free(images), free(names);
  return ok;
}

bool cg_keep_get(cg_cache *c, const rt_key *key, const cg_options *o, rt_program **p) {
  rt_image image;
  if (!c->folder[0] || !cg_cache_get(c, key, &image)) return false;
  kept *k = calloc(1, sizeof *k);
  rt_kernel **symbols = NULL;
  bool ok = k && image.bytes >= sizeof(head) && (k->data = aligned_alloc(ALIGN, (image.bytes + ALIGN - 1) / ALIGN * ALIGN));
  const kept_kernel *kernels = NULL;
  head h = {0};
  if (ok) {
    memcpy(k->data, image.data, image.bytes);
    memcpy(&h, image.data, sizeof h);
    k->size = image.bytes, k->p = h.p;
    kernels = address(k, place(h.kernels), h.n_kernels * sizeof *kernels);
    symbols = calloc(h.n_kernels + 1u, sizeof *symbols);
    ok = (kernels || !h.n_kernels) && symbols && !(h.lacks_blas && cg_blas_bind(NULL)) && load_kernels(k, c, &h, kernels, symbols) && link_steps(k, symbols, h.n_kernels) && link_slots(k);
  }
  for (uint32_t i = 0; ok && o->kernel && i < h.n_kernels; i++) o->kernel(o->user, k->data + kernels[i].name, (int)i + 1, (int)h.n_kernels, (double[3]){0}, true);
  free(image.data), free(symbols);
  if (!ok) return drop(k), false;
  k->p.release = release, k->p.owner = NULL;
  *p = &k->p;
  return true;
}
