/* loops.c: kernels of the loop language: their memory, expressions and statements. Expressions are rows of one array and
 * equal ones are one row; integer (index) arithmetic is simplified by loops_index.c when it is made. A load of a buffer
 * that the kernel writes is always a row of its own. The value of an expression is that at the statement which uses it. */
#include <stdlib.h>
#include <string.h>

#include "loops_inner.h"

lp_kernel *lp_new(const char *name, int64_t tasks) {
  lp_kernel *k = calloc(1, sizeof *k);
  struct lp_arena *arena = calloc(1, sizeof *arena);
  if (!k || !arena) {
    free(k);
    free(arena);
    return NULL;
  }
  k->arena = arena;
  k->tasks = tasks;
  size_t length = strlen(name) + 1;
  char *copy = lp_alloc(k, length);
  if (!arena->failed) memcpy(copy, name, length);
  k->name = copy;
  lp_intern(k, (lp_expr){LX_NONE}, (lp_fact){INT64_MIN, INT64_MAX, 0});      /* row 0 */
  lp_var_add(k, "task", tasks);
  return k;
}

void lp_free(lp_kernel *k) {
  if (!k) return;
  for (lp_block *b = k->arena->blocks, *next; b; b = next) {
    next = b->next;
    free(b);
  }
  free(k->arena->slots);
  free(k->arena->facts);
  free(k->exprs);
  free(k->arena);
  free(k);
}

void *lp_alloc(lp_kernel *k, size_t bytes) {
  struct lp_arena *a = k->arena;
  bytes = (bytes + 15) & ~(size_t)15;
  size_t head = (sizeof(lp_block) + 15) & ~(size_t)15;
  lp_block *b = a->blocks;
  if (!b || b->size - b->used < bytes) {
    size_t size = bytes > 32768 - head ? bytes + head : 32768;
    lp_block *fresh = calloc(1, size);
    if (!fresh) {
      a->failed = true;
      if (bytes > sizeof a->spare) return NULL;
      return memset(a->spare, 0, bytes);
    }
    *fresh = (lp_block){b, head, size};
    a->blocks = b = fresh;
  }
  void *p = (char *)b + b->used;
  b->used += bytes;
  return p;
}

static const char *copy_text(lp_kernel *k, const char *text) {
  if (!text) return NULL;
  size_t n = strlen(text) + 1;
  if (n > 256) n = 256;
  char *p = lp_alloc(k, n);
  memcpy(p, text, n - 1);
  return p;
}

/* Room for one more element of `size` bytes in an array of the arena. */
static bool grow(lp_kernel *k, void **array, int n, int *cap, size_t size) {
  if (n < *cap) return true;
  int more = *cap ? *cap * 2 : 8;
  void *p = lp_alloc(k, (size_t)more * size);
  if (k->arena->failed) return false;
  if (n) memcpy(p, *array, (size_t)n * size);
  *array = p;
  *cap = more;
  return true;
}

int lp_buffer_add(lp_kernel *k, const char *name, tt_dtype t, int64_t count, bool written, bool scratch) {
  if (!grow(k, (void **)&k->buffers, k->n_buffers, &k->arena->cap_buffers, sizeof *k->buffers)) return 0;
  k->buffers[k->n_buffers] = (lp_buffer){t, written, copy_text(k, name), count, scratch, 0};
  return k->n_buffers++;
}

int lp_buffer_again(lp_kernel *k, int buffer, tt_dtype t) {
  for (int i = 0; i < k->n_buffers; i++)
    if (k->buffers[i].again == buffer + 1 && k->buffers[i].dtype == t) return i;
  const lp_buffer b = k->buffers[buffer];
  int i = lp_buffer_add(k, b.name, t, b.count * (int64_t)tt_dtype_size(b.dtype) / (int64_t)tt_dtype_size(t), b.written, true);
  k->buffers[i].again = buffer + 1;
  return i;
}

int lp_local_add(lp_kernel *k, const char *name, tt_dtype t, int count) {
  if (!grow(k, (void **)&k->locals, k->n_locals, &k->arena->cap_locals, sizeof *k->locals)) return 0;
  k->locals[k->n_locals] = (lp_local){t, count, copy_text(k, name)};
  return k->n_locals++;
}

int lp_var_add(lp_kernel *k, const char *name, int64_t end) {
  int cap = k->arena->cap_vars;
  if (!grow(k, (void **)&k->vars, k->n_vars, &k->arena->cap_vars, sizeof *k->vars)) return 0;
  if (!grow(k, (void **)&k->arena->var_ends, k->n_vars, &cap, sizeof(int64_t))) return 0;
  k->vars[k->n_vars] = copy_text(k, name);
  k->arena->var_ends[k->n_vars] = end;
  return k->n_vars++;
}

static uint64_t hash_of(const lp_expr *e) {
  uint64_t h = e->kind | (uint64_t)e->dtype << 8 | (uint64_t)e->op << 16 | (uint64_t)e->a[0] << 32;
  h = (h ^ (uint64_t)e->imm) * 0x9e3779b97f4a7c15u;
  h = (h ^ h >> 29 ^ e->a[1] ^ (uint64_t)e->a[2] << 32) * 0xbf58476d1ce4e5b9u;
  return h ^ h >> 32;
}

static bool same(const lp_expr *a, const lp_expr *b) {
  return a->kind == b->kind && a->dtype == b->dtype && a->op == b->op && a->imm == b->imm && !memcmp(a->a, b->a, sizeof a->a);
}

static bool is_private(const lp_kernel *k, const lp_expr *e) { return e->kind == LX_LOAD && k->buffers[e->imm].written; }

static bool rehash(lp_kernel *k, uint32_t n_slots) {
  uint32_t *slots = calloc(n_slots, sizeof *slots);
  if (!slots) return false;
  for (uint32_t i = 1; i < k->n_exprs; i++) {
    if (is_private(k, &k->exprs[i])) continue;
    uint32_t at = (uint32_t)hash_of(&k->exprs[i]) & (n_slots - 1);
    while (slots[at]) at = (at + 1) & (n_slots - 1);
    slots[at] = i;
  }
  free(k->arena->slots);
  k->arena->slots = slots;
  k->arena->n_slots = n_slots;
  return true;
}

lp_ref lp_intern(lp_kernel *k, lp_expr e, lp_fact fact) {
  struct lp_arena *a = k->arena;
  if (2 * k->n_exprs >= a->n_slots && !rehash(k, a->n_slots ? a->n_slots * 2 : 512)) return a->failed = true, 0;
  uint32_t at = (uint32_t)hash_of(&e) & (a->n_slots - 1);
  bool is_shared = e.kind != LX_NONE && !is_private(k, &e);
  if (is_shared) {
    for (; a->slots[at]; at = (at + 1) & (a->n_slots - 1))
      if (same(&k->exprs[a->slots[at]], &e)) return a->slots[at];
  }
  if (k->n_exprs == k->cap_exprs) {
    uint32_t cap = k->cap_exprs ? k->cap_exprs * 2 : 256;
    lp_expr *exprs = realloc(k->exprs, cap * sizeof *exprs);
    if (exprs) k->exprs = exprs;
    lp_fact *facts = realloc(a->facts, cap * sizeof *facts);
    if (facts) a->facts = facts;
    if (!exprs || !facts) return a->failed = true, 0;
    k->cap_exprs = cap;
  }
  for (int i = 0; i < 3; i++)
    if (e.a[i]) fact.vars |= a->facts[e.a[i]].vars;
  k->exprs[k->n_exprs] = e;
  a->facts[k->n_exprs] = fact;
  if (is_shared) a->slots[at] = k->n_exprs;
  return k->n_exprs++;
}

static const lp_fact unknown = {INT64_MIN, INT64_MAX, 0};

lp_ref lp_const_bits(lp_kernel *k, tt_dtype t, int64_t bits) {
  lp_fact f = t == TT_I64 ? (lp_fact){bits, bits, 0} : unknown;
  return lp_intern(k, (lp_expr){.kind = LX_CONST, .dtype = t, .imm = bits}, f);
}

lp_ref lp_const(lp_kernel *k, tt_dtype t, double v) {
  int64_t bits = 0;
  uint32_t word;
  float f = (float)v;
  switch (t) {
  case TT_F64: memcpy(&bits, &v, 8); break;
  case TT_F16: f = tt_f16_to_f32(tt_f32_to_f16(f)); goto single;
  case TT_BF16: f = tt_bf16_to_f32(tt_f32_to_bf16(f)); goto single;
  case TT_F32:
  single:
    memcpy(&word, &f, 4);
    bits = word;
    break;
  case TT_BOOL: bits = v != 0; break;
  case TT_U64: bits = v >= 9223372036854775808.0 ? (int64_t)(uint64_t)v : (int64_t)v; break;
  default: bits = (int64_t)v;
  }
  return lp_const_bits(k, t, bits);
}

lp_ref lp_int(lp_kernel *k, int64_t v) { return lp_const_bits(k, TT_I64, v); }

lp_ref lp_var(lp_kernel *k, int var) {
  int64_t end = lp_var_end(k, var);
  if (end == 1) return lp_int(k, 0);
  lp_fact f = {0, end > 0 ? end - 1 : INT64_MAX, (uint64_t)1 << (var < 63 ? var : 63)};
  return lp_intern(k, (lp_expr){.kind = LX_VAR, .dtype = TT_I64, .imm = var}, f);
}

lp_ref lp_begin(lp_kernel *k) {
  if (!k->begin) k->begin = lp_var_add(k, "begin", k->tasks);
  return lp_var(k, k->begin);
}

lp_ref lp_get(lp_kernel *k, int local, lp_ref index) {
  return lp_intern(k, (lp_expr){.kind = LX_LOCAL, .dtype = k->locals[local].dtype, .imm = local, .a = {index}}, unknown);
}

lp_ref lp_load(lp_kernel *k, int buffer, lp_ref index, lp_ref guard, lp_ref otherwise) {
  tt_dtype t = k->buffers[buffer].dtype;
  if (guard && k->exprs[guard].kind == LX_CONST) {
    if (!k->exprs[guard].imm) return otherwise ? otherwise : lp_const(k, t, 0);
    guard = otherwise = 0;
  }
  if (!guard) otherwise = 0;
  return lp_intern(k, (lp_expr){.kind = LX_LOAD, .dtype = t, .imm = buffer, .a = {index, guard, otherwise}}, unknown);
}

lp_ref lp_raw(lp_kernel *k, ir_op op, tt_dtype t, lp_ref a, lp_ref b, lp_ref c, int64_t lo, int64_t hi) {
  return lp_intern(k, (lp_expr){.kind = LX_OP, .dtype = t, .op = op, .a = {a, b, c}}, (lp_fact){lo, hi, 0});
}

lp_ref lp_fma(lp_kernel *k, lp_ref a, lp_ref b, lp_ref c) {
  return lp_intern(k, (lp_expr){.kind = LX_FMA, .dtype = k->exprs[c].dtype, .a = {a, b, c}}, unknown);
}

lp_ref lp_dot(lp_kernel *k, lp_ref a, lp_ref b, lp_ref c) { return lp_intern(k, (lp_expr){.kind = LX_DOT, .dtype = TT_F32, .a = {a, b, c}}, unknown); }

lp_ref lp_philox(lp_kernel *k, lp_ref seed, lp_ref step, lp_ref index, int64_t stream) {
  return lp_intern(k, (lp_expr){.kind = LX_PHILOX, .dtype = TT_U16, .imm = stream, .a = {seed, step, index}}, unknown);
}

/* The range of an integer type, for casts to i64. */
static bool type_range(tt_dtype t, int64_t *lo, int64_t *hi) {
  if (t == TT_U64 || t == TT_I64 || tt_dtype_in(t, TT_REAL)) return false;
  int bits = 8 * (int)tt_dtype_size(t);
  bool is_signed = tt_dtype_in(t, TT_SINT);
  *lo = is_signed ? -((int64_t)1 << (bits - 1)) : 0;
  *hi = t == TT_BOOL ? 1 : ((int64_t)1 << (bits - is_signed)) - 1;
  return true;
}

static lp_ref make_cast(lp_kernel *k, tt_dtype t, lp_ref a) {
  lp_expr e = k->exprs[a];
  int64_t lo = INT64_MIN, hi = INT64_MAX;
  if (e.dtype == t) return a;
  if (t == TT_I64 && type_range(e.dtype, &lo, &hi)) {
    if (e.kind == LX_CONST) return lp_int(k, e.imm);
    if (e.kind == LX_OP && e.op == IR_cast && k->exprs[e.a[0]].dtype == TT_I64) {      /* there and back without loss */
      const lp_fact *f = lp_fact_of(k, e.a[0]);
      if (e.dtype != TT_BOOL && f->lo >= lo && f->hi <= hi) return e.a[0];
    }
  }
  if (e.kind == LX_CONST && e.dtype == TT_I64 && t != TT_BOOL && type_range(t, &lo, &hi)) {
    if (e.imm >= lo && e.imm <= hi) return lp_const_bits(k, t, e.imm);
    lo = INT64_MIN, hi = INT64_MAX;
  }
  return t == TT_I64 ? lp_raw(k, IR_cast, t, a, 0, 0, lo, hi) : lp_raw(k, IR_cast, t, a, 0, 0, INT64_MIN, INT64_MAX);
}

static bool is_bool_const(const lp_kernel *k, lp_ref e, int64_t *v) {
  if (!e || k->exprs[e].kind != LX_CONST || k->exprs[e].dtype != TT_BOOL) return false;
  *v = k->exprs[e].imm;
  return true;
}

lp_ref lp_op(lp_kernel *k, ir_op op, tt_dtype result, lp_ref a, lp_ref b, lp_ref c) {
  int64_t v;
  tt_dtype t = k->exprs[a].dtype;
  switch (op) {
  case IR_stop_gradient: return a;
  case IR_cast: return make_cast(k, result, a);
  case IR_bitcast: if (t == result) return a; break;
  case IR_select:
    if (b == c) return b;
    if (is_bool_const(k, a, &v)) return v ? b : c;
    if (result == TT_I64) {
      const lp_fact *x = lp_fact_of(k, b), *y = lp_fact_of(k, c);
      return lp_raw(k, op, result, a, b, c, x->lo < y->lo ? x->lo : y->lo, x->hi > y->hi ? x->hi : y->hi);
    }
    break;
  case IR_and: case IR_or:
    if (t != TT_BOOL) break;
    if (a == b) return a;
    if (is_bool_const(k, a, &v)) return (op == IR_and) == (v != 0) ? b : a;
    if (is_bool_const(k, b, &v)) return (op == IR_and) == (v != 0) ? a : b;
    break;
  case IR_not: if (is_bool_const(k, a, &v)) return lp_const_bits(k, TT_BOOL, !v); break;
  default:
    if (t == TT_I64) {
      lp_ref r = lp_index_op(k, op, result, a, b);
      if (r) return r;
    }
  }
  return lp_raw(k, op, result, a, b, c, INT64_MIN, INT64_MAX);
}

lp_ref lp_rebuild(lp_kernel *k, lp_ref e, const lp_ref a[3]) {
  lp_expr x = k->exprs[e];
  if (!memcmp(a, x.a, sizeof x.a) && !is_private(k, &x)) return e;
  switch (x.kind) {
  case LX_LOCAL: return lp_get(k, (int)x.imm, a[0]);
  case LX_LOAD: return lp_load(k, (int)x.imm, a[0], a[1], a[2]);
  case LX_OP: return lp_op(k, x.op, x.dtype, a[0], a[1], a[2]);
  case LX_FMA: return lp_fma(k, a[0], a[1], a[2]);
  case LX_DOT: return lp_dot(k, a[0], a[1], a[2]);
  case LX_PHILOX: return lp_philox(k, a[0], a[1], a[2], x.imm);
  default: return e;
  }
}

bool lp_is_int(const lp_kernel *k, lp_ref e, int64_t *v) {
  if (!e || k->exprs[e].kind != LX_CONST || k->exprs[e].dtype != TT_I64) return false;
  *v = k->exprs[e].imm;
  return true;
}

void lp_range(const lp_kernel *k, lp_ref e, int64_t *lo, int64_t *hi) {
  *lo = k->arena->facts[e].lo;
  *hi = k->arena->facts[e].hi;
}

int64_t lp_var_end(const lp_kernel *k, int var) { return var ? k->arena->var_ends[var] : k->tasks; }

bool lp_depends(const lp_kernel *k, lp_ref e, int var) {
  if (!e) return false;
  uint64_t vars = lp_fact_of(k, e)->vars;
  if (var < 63) return vars >> var & 1;
  if (!(vars >> 63)) return false;
  const lp_expr *x = &k->exprs[e];
  if (x->kind == LX_VAR) return x->imm == var;
  return lp_depends(k, x->a[0], var) || lp_depends(k, x->a[1], var) || lp_depends(k, x->a[2], var);
}

bool lp_affine(const lp_kernel *k, lp_ref e, int var, int64_t *coefficient) {
  *coefficient = 0;
  if (!lp_depends(k, e, var)) return true;
  const lp_expr *x = &k->exprs[e];
  int64_t b, v;
  if (x->kind == LX_VAR) return *coefficient = 1, true;
  if (x->kind != LX_OP || x->dtype != TT_I64) return false;
  if (x->op == IR_add) {
    if (!lp_affine(k, x->a[0], var, coefficient) || !lp_affine(k, x->a[1], var, &b)) return false;
    *coefficient += b;
    return true;
  }
  if (x->op != IR_mul || !lp_is_int(k, x->a[1], &v) || !lp_affine(k, x->a[0], var, coefficient)) return false;
  *coefficient *= v;
  return true;
}

lp_stmt *lp_stmt_new(lp_kernel *k, ls_kind kind) {
  lp_stmt *s = lp_alloc(k, sizeof *s);
  s->kind = kind;
  s->step = 1;
  return s;
}

lp_stmt *lp_append(lp_kernel *k, lp_cursor *at, ls_kind kind) {
  lp_stmt *s = lp_stmt_new(k, kind);
  if (k->arena->failed) return s;
  *at->tail = s;
  at->tail = &s->next;
  return s;
}

lp_stmt *lp_for(lp_kernel *k, lp_cursor *at, int var, int64_t begin, int64_t end, int lanes, lp_cursor *inside) {
  lp_stmt *s = lp_append(k, at, LS_FOR);
  s->var = var;
  s->begin = begin;
  s->end = end;
  s->lanes = lanes;
  inside->tail = &s->body;
  return s;
}

size_t lp_scratch_bytes(const lp_kernel *k) {
  size_t bytes = 0;
  for (int i = 0; i < k->n_buffers; i++)
    if (k->buffers[i].scratch && !k->buffers[i].again) bytes += ((size_t)k->buffers[i].count * tt_dtype_size(k->buffers[i].dtype) + 63) & ~(size_t)63;
  return bytes;
}
