/* graph.c: the rows of a graph and ir_emit, the one function that makes them. It takes an op, operands and attributes; it
 * gives a row: an equal one that is there already, what folding or a rule made of it, or a new one.
 *
 *     check -> infer -> fold constants -> rules -> look for an equal row -> append
 *
 * A row's key is its op, operands, attributes, region and element type. Where it came from is not in the key: the row that
 * two places share has the origins of both. */
#include "ir.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct chunk { struct chunk *next; } chunk;
typedef struct { uint64_t hash; uint32_t value; } cell;          /* value 0: empty */
typedef struct { cell *cells; uint32_t n, cap; } table;

struct ir_store {
  chunk *chunks;
  char *free;
  size_t left;
  table strings, rows, blobs, names;
  const char **texts; uint32_t n_texts, cap_texts;                /* what values of `strings` count, from 1 */
  uint32_t *became, n_became;      /* origins of the graph that is copied from: ir_origin_copy */
};

/* ---- memory ---- */

static bool no_memory(ir_graph *g) { return tt_fail(&g->error, TT_NO_MEMORY, "error: no memory for the graph @%s\n  at %" PRIu32 " rows\n  fix: make the model smaller", g->name ? g->name : "", g->n_nodes), false; }

void *ir_alloc(ir_graph *g, size_t bytes) {
  struct ir_store *s = g->store;
  bytes = (bytes + 15) & ~(size_t)15;
  if (bytes > s->left) {
    size_t size = bytes > 1 << 16 ? bytes : 1 << 16;
    chunk *c = calloc(1, sizeof(max_align_t) + size);
    if (!c) return no_memory(g), NULL;
    c->next = s->chunks;
    s->chunks = c;
    if (size == bytes) return (char *)c + sizeof(max_align_t);    /* a large block of its own: the current chunk stays in use */
    s->free = (char *)c + sizeof(max_align_t);
    s->left = size;
  }
  void *p = s->free;
  s->free += bytes;
  s->left -= bytes;
  return p;
}

/* Makes room for one more in an array of n. */
static bool grow(ir_graph *g, void *array, uint32_t n, uint32_t *cap, size_t size) {
  if (n < *cap) return true;
  uint32_t more = *cap ? *cap * 2 : 16;
  void *p = realloc(*(void **)array, more * size);
  if (!p) return no_memory(g);
  *(void **)array = p;
  *cap = more;
  return true;
}

static uint64_t hash_bytes(uint64_t h, const void *data, size_t n) {
  const unsigned char *p = data;
  for (; n >= 8; n -= 8, p += 8) {
    uint64_t w;
    memcpy(&w, p, 8);
    h = (h ^ w) * 0x9E3779B97F4A7C15, h ^= h >> 32;
  }
  for (; n; n--) h = (h ^ *p++) * 0x9E3779B97F4A7C15, h ^= h >> 32;
  return h;
}

/* The next cell with this hash after `at` (NULL: from the start); NULL when there is none. */
static cell *look(const table *t, uint64_t hash, cell *at) {
  if (!t->cap) return NULL;
  uint32_t i = at ? (uint32_t)(at - t->cells + 1) & (t->cap - 1) : (uint32_t)hash & (t->cap - 1);
  for (; t->cells[i].value; i = (i + 1) & (t->cap - 1))
    if (t->cells[i].hash == hash) return &t->cells[i];
  return NULL;
}

static void put(table *t, uint64_t hash, uint32_t value) {
  uint32_t i = (uint32_t)hash & (t->cap - 1);
  while (t->cells[i].value) i = (i + 1) & (t->cap - 1);
  t->cells[i] = (cell){hash, value};
  t->n++;
}

static bool insert(ir_graph *g, table *t, uint64_t hash, uint32_t value) {
  if (2 * (t->n + 1) > t->cap) {
    table bigger = {.cap = t->cap ? t->cap * 2 : 64};
    bigger.cells = calloc(bigger.cap, sizeof(cell));
    if (!bigger.cells) return no_memory(g);
    for (uint32_t i = 0; i < t->cap; i++)
      if (t->cells[i].value) put(&bigger, t->cells[i].hash, t->cells[i].value);
    free(t->cells);
    *t = bigger;
  }
  put(t, hash, value);
  return true;
}

/* The interned text equal to this one, or NULL. */
static const char *find_text(const struct ir_store *s, uint64_t hash, const char *text, size_t n) {
  for (cell *c = look(&s->strings, hash, NULL); c; c = look(&s->strings, hash, c)) {
    const char *t = s->texts[c->value - 1];
    if (strlen(t) == n && !memcmp(t, text, n)) return t;
  }
  return NULL;
}

const char *ir_intern_n(ir_graph *g, const char *text, size_t n) {
  struct ir_store *s = g->store;
  uint64_t hash = hash_bytes(1, text, n);
  const char *known = find_text(s, hash, text, n);
  if (known) return known;
  char *copy = ir_alloc(g, n + 1);
  if (!copy || !grow(g, &s->texts, s->n_texts, &s->cap_texts, sizeof *s->texts) || !insert(g, &s->strings, hash, s->n_texts + 1)) return NULL;
  memcpy(copy, text, n);
  return s->texts[s->n_texts++] = copy;
}

const char *ir_intern(ir_graph *g, const char *text) { return ir_intern_n(g, text, strlen(text)); }

int64_t ir_blob_add(ir_graph *g, const void *data, size_t bytes) {
  uint64_t hash = hash_bytes(bytes, data, bytes);
  for (cell *c = look(&g->store->blobs, hash, NULL); c; c = look(&g->store->blobs, hash, c)) {
    const ir_blob *b = &g->blobs[c->value - 1];
    if (b->bytes == bytes && (!bytes || !memcmp(b->data, data, bytes))) return c->value - 1;
  }
  void *copy = ir_alloc(g, bytes);
  if (!copy || !grow(g, &g->blobs, g->n_blobs, &g->cap_blobs, sizeof *g->blobs) || !insert(g, &g->store->blobs, hash, g->n_blobs + 1)) return -1;
  if (bytes) memcpy(copy, data, bytes);
  g->blobs[g->n_blobs] = (ir_blob){copy, bytes};
  return g->n_blobs++;
}

int64_t ir_function_add(ir_graph *g, ir_graph *function) {
  for (uint32_t i = 0; i < g->n_replaced; i++)
    if (g->replaced[i][0] == function) { function = g->replaced[i][1]; break; }
  for (uint32_t i = 0; i < g->n_functions; i++)
    if (g->functions[i] == function) return i;
  if (!grow(g, &g->functions, g->n_functions, &g->cap_functions, sizeof *g->functions)) return -1;
  function->holders++, function->called = true;
  if (function->depth >= g->depth) g->depth = function->depth + 1;
  g->functions[g->n_functions] = function;
  return g->n_functions++;
}

ir_graph *ir_graph_new(const char *name) {
  ir_graph *g = calloc(1, sizeof *g);
  if (!g || !(g->store = calloc(1, sizeof *g->store))) return free(g), NULL;
  bool ok = grow(g, &g->blocks, 0, &g->cap_blocks, sizeof *g->blocks) && grow(g, &g->origins, 0, &g->cap_origins, sizeof *g->origins)
         && grow(g, &g->kernels, 0, &g->cap_kernels, sizeof *g->kernels) && (g->blocks[0] = calloc(IR_BLOCK, sizeof(ir_node)));
  if (ok) {
    g->n_nodes = g->n_origins = g->n_kernels = 1;
    memset(g->origins, 0, sizeof *g->origins);
    memset(g->kernels, 0, sizeof *g->kernels);
    g->blocks[0][0].place = IR_UNPLACED;
    ok = (g->name = ir_intern(g, name)) != NULL;
  }
  if (!ok) return ir_graph_free(g), NULL;
  return g;
}

void ir_graph_free(ir_graph *g) {
  if (!g || (g->holders && --g->holders)) return;
  struct ir_store *s = g->store;
  for (uint32_t i = 0; i < g->n_functions; i++) ir_graph_free(g->functions[i]);
  free(g->functions);
  for (uint32_t i = 0; i * IR_BLOCK < g->n_nodes; i++) free(g->blocks[i]);
  for (chunk *c = s->chunks, *next; c; c = next) next = c->next, free(c);
  free(g->blocks), free(g->origins), free(g->kernels), free(g->blobs), free(g->outputs), free(g->effects);
  free(s->strings.cells), free(s->rows.cells), free(s->blobs.cells), free(s->names.cells), free(s->texts), free(s->became);
  free(s);
  free(g);
}

/* ---- origins ---- */

/* Its texts are interned. */
static uint32_t origin_cell(ir_graph *g, ir_origin o) {
  if (!grow(g, &g->origins, g->n_origins, &g->cap_origins, sizeof *g->origins)) return 0;
  g->origins[g->n_origins] = o;
  return g->n_origins++;
}

uint32_t ir_origin_add(ir_graph *g, const char *file, int line, const char *scope, uint32_t next) {
  return origin_cell(g, (ir_origin){file ? ir_intern(g, file) : NULL, line, scope && *scope ? ir_intern(g, scope) : NULL, next});
}

static bool origin_has(const ir_graph *g, uint32_t list, uint32_t one) {
  const ir_origin *x = &g->origins[one];
  for (; list; list = g->origins[list].next) {
    const ir_origin *y = &g->origins[list];
    if (x->file == y->file && x->line == y->line && x->scope == y->scope) return true;
  }
  return false;
}

/* A copy of `list` that goes on with `tail`. Recursion is as deep as the list is long; lists are a few cells. */
static uint32_t origin_append(ir_graph *g, uint32_t list, uint32_t tail) {
  if (!list) return tail;
  uint32_t next = origin_append(g, g->origins[list].next, tail);
  ir_origin o = g->origins[list];
  o.next = next;
  return origin_cell(g, o);
}

uint32_t ir_origin_join(ir_graph *g, uint32_t a, uint32_t b) {
  if (!a || a == b) return b;
  for (; b; b = g->origins[b].next)
    if (!origin_has(g, a, b)) {
      ir_origin o = g->origins[b];
      o.next = 0;
      a = origin_append(g, a, origin_cell(g, o));
    }
  return a;
}

static bool same_origin(const ir_origin *x, const ir_origin *o, uint32_t next) {
  return x->next == next && x->line == o->line && x->file && o->file && !strcmp(x->file, o->file) && !x->scope == !o->scope && (!o->scope || !strcmp(x->scope, o->scope));
}

/* What a cell became before is a guess to look at first: the numbers may be another graph's, of the same size. */
uint32_t ir_origin_copy(ir_graph *to, const ir_graph *from, uint32_t origin) {
  struct ir_store *s = to->store;
  if (!origin) return 0;
  if (s->n_became < from->n_origins) {
    uint32_t *more = realloc(s->became, from->n_origins * sizeof *more);
    if (!more) return no_memory(to), 0;
    memset(more + s->n_became, 0, (from->n_origins - s->n_became) * sizeof *more);
    s->became = more, s->n_became = from->n_origins;
  }
  ir_origin o = from->origins[origin];
  uint32_t next = ir_origin_copy(to, from, o.next), c = s->became[origin];
  if (c && same_origin(&to->origins[c], &o, next)) return c;
  for (c = to->n_origins - 1; c && c + 16 > to->n_origins; c--)                /* neighbours mostly come from one place */
    if (same_origin(&to->origins[c], &o, next)) return s->became[origin] = c;
  return s->became[origin] = ir_origin_add(to, o.file, o.line, o.scope, next);
}

/* ---- names, outputs, kernels ---- */

/* Names are interned, so a name's hash is its address. */
static uint64_t name_hash(const char *interned) { return (uint64_t)(uintptr_t)interned >> 4; }

void ir_name(ir_graph *g, ir_ref r, const char *name) {
  if (!r || !name || !*name || ir_at(g, r)->name || !(name = ir_intern(g, name)) || look(&g->store->names, name_hash(name), NULL)) return;
  if (insert(g, &g->store->names, name_hash(name), r)) ir_at(g, r)->name = name;
}

const char *ir_label(const ir_graph *g, ir_ref r, char *text, size_t size) {
  const char *name = ir_at(g, r)->name;
  if (name) snprintf(text, size, "%%%s", name);
  else snprintf(text, size, "%%%" PRIu32, r - 1);      /* as the text form counts: from 0 */
  return text;
}

ir_ref ir_find(const ir_graph *g, const char *name) {
  size_t n = strlen(name);
  const char *known = find_text(g->store, hash_bytes(1, name, n), name, n);       /* names are interned: equal ones are one pointer */
  const cell *c = known ? look(&g->store->names, name_hash(known), NULL) : NULL;
  return c && (ir_at(g, c->value)->op == IR_input || ir_at(g, c->value)->op == IR_param) ? c->value : 0;
}

void ir_output_add(ir_graph *g, const char *name, ir_ref value) {
  if (!value || value >= g->n_nodes) {
    if (g->error.status == TT_OK) tt_bug(g, "output %s of @%s is poison, yet no mistake is recorded", name ? name : "", g->name);
    return;
  }
  const char *text = name && *name ? ir_intern(g, name) : NULL;
  if (grow(g, &g->outputs, g->n_outputs, &g->cap_outputs, sizeof *g->outputs)) g->outputs[g->n_outputs++] = (ir_output){text, value};
}

uint32_t ir_kernel_add(ir_graph *g, const char *name) {
  if (!grow(g, &g->kernels, g->n_kernels, &g->cap_kernels, sizeof *g->kernels)) return 0;
  g->kernels[g->n_kernels] = (ir_kernel){.name = ir_intern(g, name)};
  return g->n_kernels++;
}

void ir_kernel_plan(ir_graph *g, uint32_t kernel, const char *name, const int64_t *values, uint32_t n) {
  ir_kernel *k = &g->kernels[kernel];
  uint32_t i = 0;
  while (i < k->n_plan && strcmp(k->plan[i].name, name)) i++;
  if (i == sizeof k->plan / sizeof k->plan[0]) { tt_bug(g, "kernel @%s: no room for plan entry %s", k->name, name); return; }
  int64_t *copy = ir_alloc(g, n * sizeof *copy);
  const char *text = ir_intern(g, name);
  if (!copy || !text) return;
  if (n) memcpy(copy, values, n * sizeof *copy);
  k->plan[i].name = text;
  k->plan[i].n = n;
  k->plan[i].values = copy;
  if (i == k->n_plan) k->n_plan++;
}

const int64_t *ir_kernel_get(const ir_graph *g, uint32_t kernel, const char *name, uint32_t *n) {
  const ir_kernel *k = &g->kernels[kernel];
  for (uint32_t i = 0; i < k->n_plan; i++)
    if (!strcmp(k->plan[i].name, name)) {
      if (n) *n = k->plan[i].n;
      return k->plan[i].values;
    }
  if (n) *n = 0;
  return NULL;
}

/* ---- rows ---- */

static uint64_t row_hash(ir_op op, const ir_ref *args, uint32_t n_args, const int64_t *words, uint32_t n_words, uint32_t region, tt_dtype t) {
  uint64_t head[2] = {(uint64_t)op << 32 | region, (uint64_t)t << 32 | n_args};
  uint64_t h = hash_bytes(7, head, sizeof head);
  for (uint32_t i = 0; i < n_args; i++) h = hash_bytes(h, &(uint64_t){args[i]}, 8);
  return hash_bytes(h, words, n_words * sizeof *words);
}

static ir_ref equal_row(const ir_graph *g, uint64_t hash, ir_op op, const ir_ref *args, uint32_t n_args, const int64_t *words, uint32_t n_words, uint32_t region, tt_dtype t) {
  for (cell *c = look(&g->store->rows, hash, NULL); c; c = look(&g->store->rows, hash, c)) {
    const ir_node *n = ir_at(g, c->value);
    if (n->op == op && n->region == region && n->dtype == t && n->n_args == n_args && n->n_words == n_words
        && (!n_args || !memcmp(n->args, args, n_args * sizeof *args)) && (!n_words || !memcmp(n->words, words, n_words * sizeof *words))) return c->value;
  }
  return 0;
}

static ir_ref append(ir_graph *g, ir_op op, const ir_ref *args, uint32_t n_args, const int64_t *words, uint32_t n_words, uint32_t region, tt_dtype t, const tt_shape *s) {
  uint32_t block = g->n_nodes / IR_BLOCK;
  if (g->n_nodes % IR_BLOCK == 0) {
    if (!grow(g, &g->blocks, block, &g->cap_blocks, sizeof *g->blocks)) return 0;
    if (!(g->blocks[block] = calloc(IR_BLOCK, sizeof(ir_node)))) return no_memory(g), 0;
  }
  ir_ref *a = ir_alloc(g, n_args * sizeof *a);
  int64_t *w = ir_alloc(g, n_words * sizeof *w);
  bool leaf = op == IR_input || op == IR_param;
  bool ok = a && w && (op != IR_assign || grow(g, &g->effects, g->n_effects, &g->cap_effects, sizeof(ir_ref)));
  if (!ok) {
    if (g->n_nodes % IR_BLOCK == 0) free(g->blocks[block]);
    return 0;
  }
  if (n_args) memcpy(a, args, n_args * sizeof *a);
  if (n_words) memcpy(w, words, n_words * sizeof *w);
  ir_ref r = g->n_nodes++;
  ir_node *n = ir_at(g, r);
  *n = (ir_node){.op = (uint16_t)op, .dtype = (uint8_t)t, .rank = (uint8_t)s->rank, .n_args = n_args, .n_words = n_words, .region = region,
                 .origin = g->at_origin, .args = a, .words = w, .place = IR_UNPLACED};
  memcpy(n->dim, s->dim, (size_t)s->rank * sizeof *n->dim);
  if (leaf) {                                                     /* its name is its own, even when a computed row was called so */
    n->name = ir_str(n, "name");
    cell *c = look(&g->store->names, name_hash(n->name), NULL);
    if (c) ir_at(g, c->value)->name = NULL, c->value = r;
    else if (!insert(g, &g->store->names, name_hash(n->name), r)) return 0;
  }
  if (op == IR_assign) g->effects[g->n_effects++] = r;
  ir_kernel *k = &g->kernels[region];
  if (region && !k->first) k->first = r;
  if (region) k->last = r;
  return r;
}

/* A name belongs to one input or param, and a param has one next value. */
static bool unique(ir_graph *g, ir_op op, const ir_ref *args, const int64_t *words, uint32_t n_words) {
  if (op == IR_input || op == IR_param) {
    const char *name = ir_str(&(ir_node){.op = (uint16_t)op, .words = words, .n_words = n_words}, "name");
    ir_ref r = ir_find(g, name);
    if (!r) return true;
    char text[200], fix[300];
    tt_shape s = ir_shape(g, r);
    snprintf(fix, sizeof fix, "name one of them otherwise, or put them in different scopes");
    ir_mistake(g, op, NULL, 0, fix, "the name %s is taken by the %s of type %s", name, ir_ops[ir_at(g, r)->op].name, tt_type_text(ir_at(g, r)->dtype, &s, text, sizeof text));
    return false;
  }
  for (uint32_t i = 0; op == IR_assign && i < g->n_effects; i++)
    if (ir_at(g, g->effects[i])->args[0] == args[0]) {
      ir_mistake(g, op, args, 2, "assign once, the last value", "the param has a next value already");
      return false;
    }
  return true;
}

ir_ref ir_emit(ir_graph *g, ir_op op, const ir_ref *args, uint32_t n_args, const int64_t *words, uint32_t n_words) {
  if (op <= IR_poison || op >= IR_N_OPS) return tt_bug(g, "there is no op number %d", (int)op);
  const ir_op_info *info = &ir_ops[op];
  if (info->arity < 0 ? n_args < 1 : n_args != (uint32_t)info->arity) return tt_bug(g, "%s made with %" PRIu32 " operands", info->name, n_args);
  for (uint32_t i = 0; i < n_args; i++) {
    if (args[i] >= g->n_nodes) return tt_bug(g, "%s made with operand %" PRIu32 " of %" PRIu32 " rows", info->name, args[i], g->n_nodes);
    if (!args[i]) return g->error.status ? 0 : tt_bug(g, "%s made with poison, yet no mistake is recorded", info->name);
    if (ir_at(g, args[i])->op == IR_assign) return tt_bug(g, "%s made with an assign as operand", info->name);
  }
  if (!ir_words_ok(g, op, words, n_words)) return tt_bug(g, "%s made with attributes that are not of its row", info->name);
  tt_dtype t;
  tt_shape s;
  if (!ir_infer(g, op, args, n_args, words, n_words, &t, &s)) return 0;
  bool outside = op == IR_input || op == IR_param || op == IR_assign;            /* of every kernel */
  uint32_t region = outside ? 0 : g->at_region;
  if (!g->plain && !outside) {
    ir_ref r;
    if (ir_fold_constants(g, op, args, n_args, words, n_words, t, &s, &r)) return r;
    if (g->rules && (r = g->rules(g, op, args, n_args, words, n_words))) return r;
  }
  uint64_t hash = row_hash(op, args, n_args, words, n_words, region, t);
  if (!g->plain) {
    ir_ref r = equal_row(g, hash, op, args, n_args, words, n_words, region, t);
    if (r) {
      if (op != IR_const) ir_at(g, r)->origin = ir_origin_join(g, ir_at(g, r)->origin, g->at_origin);   /* a number is of no one place */
      return r;
    }
  }
  if (!unique(g, op, args, words, n_words)) return 0;
  ir_ref r = append(g, op, args, n_args, words, n_words, region, t, &s);
  if (r && g->plain && equal_row(g, hash, op, args, n_args, words, n_words, region, t)) return r;     /* many equal rows of a text: one is found, in one step */
  return r && insert(g, &g->store->rows, hash, r) ? r : 0;
}

/* ---- mistakes ---- */

static const char *file_name(const char *path) {
  const char *slash = path ? strrchr(path, '/') : NULL;
  return slash ? slash + 1 : path;
}

ir_ref ir_mistake(ir_graph *g, ir_op op, const ir_ref *args, uint32_t n_args, const char *fix, const char *format, ...) {
  enum { SHOWN = 4 };
  char what[700], where[900], label[120], type[120];
  if (g->error.status) return 0;
  va_list list;
  va_start(list, format);
  vsnprintf(what, sizeof what, format, list);
  va_end(list);
  size_t n = 0;
#define ADD(...) do { if (n < sizeof where) n += (size_t)snprintf(where + n, sizeof where - n, __VA_ARGS__); } while (0)
  const ir_origin *o = &g->origins[g->at_origin];
  if (g->at_origin && o->file) ADD("%s:%d%s%s", file_name(o->file), o->line, o->scope ? " in " : "", o->scope ? o->scope : "");
  else ADD("@%s", g->name);
  for (uint32_t i = 0; i < n_args && i < SHOWN; i++) {
    const ir_node *a = ir_at(g, args[i]);
    tt_shape s = ir_shape(g, args[i]);
    ADD("%s%s is %s", i ? ", " : ": ", ir_label(g, args[i], label, sizeof label), tt_type_text(a->dtype, &s, type, sizeof type));
    if (a->op == IR_input || a->op == IR_param) continue;
    if (a->origin && g->origins[a->origin].file) ADD(" (%s, %s:%d)", ir_ops[a->op].name, file_name(g->origins[a->origin].file), g->origins[a->origin].line);
    else ADD(" (%s)", ir_ops[a->op].name);
  }
  if (n_args > SHOWN) ADD(", ...");
#undef ADD
  char call[400];
  size_t m = (size_t)snprintf(call, sizeof call, "%s(", ir_ops[op].name);
  for (uint32_t i = 0; i < n_args && i < SHOWN && m < sizeof call; i++) m += (size_t)snprintf(call + m, sizeof call - m, "%s%s", i ? ", " : "", ir_label(g, args[i], label, sizeof label));
  if (m < sizeof call) snprintf(call + m, sizeof call - m, n_args > SHOWN ? ", ...)" : ")");
  tt_fail(&g->error, TT_INVALID, "error: %s: %s\n  at %s\n  fix: %s", call, what, where, fix);
  return 0;
}
