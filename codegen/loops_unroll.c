/* loops_unroll.c: transformations that make bodies again (substitution, unrolling), and the check of a finished kernel. */
#include <stdlib.h>
#include <string.h>

#include "loops_inner.h"

/* One rewriting: a variable becomes an expression, locals get other numbers. Each row is rewritten once. */
typedef struct {
  lp_kernel *k;
  int var;                    /* -1: none */
  lp_ref with;
  int32_t *locals;            /* of each old local its new number; NULL: all stay */
  int n_locals;
  lp_ref *memo; uint32_t n;   /* rows that were there at the start */
} rewrite;

static bool rewrite_start(rewrite *w, lp_kernel *k, int var, lp_ref with) {
  *w = (rewrite){.k = k, .var = var, .with = with, .n = k->n_exprs};
  w->memo = calloc(w->n, sizeof *w->memo);
  if (!w->memo) k->arena->failed = true;
  return w->memo;
}

static lp_ref rewrite_expr(rewrite *w, lp_ref e) {
  if (!e || e >= w->n) return e;
  if (w->memo[e]) return w->memo[e];
  lp_kernel *k = w->k;
  lp_expr x = k->exprs[e];
  lp_ref a[3], r;
  for (int i = 0; i < 3; i++) a[i] = rewrite_expr(w, x.a[i]);
  if (x.kind == LX_VAR) r = x.imm == w->var ? w->with : e;
  else if (x.kind == LX_LOCAL && w->locals && x.imm < w->n_locals) r = lp_get(k, w->locals[x.imm], a[0]);
  else r = lp_rebuild(k, e, a);
  return w->memo[e] = r;
}

lp_ref lp_subst(lp_kernel *k, lp_ref e, int var, lp_ref with) {
  rewrite w;
  if (!lp_depends(k, e, var) || !rewrite_start(&w, k, var, with)) return e;
  lp_ref r = rewrite_expr(&w, e);
  free(w.memo);
  return r;
}

void lp_replace(lp_kernel *k, lp_ref *values, int n, const lp_ref *from, const lp_ref *to, int n_from) {
  rewrite w;
  if (!n_from || !rewrite_start(&w, k, -1, 0)) return;
  for (int i = 0; i < n_from; i++)
    if (from[i] < w.n) w.memo[from[i]] = to[i];
  for (int i = 0; i < n; i++) values[i] = rewrite_expr(&w, values[i]);
  free(w.memo);
}

static void number_locals(rewrite *w, const lp_stmt *s) {
  for (; s; s = s->next) {
    if (s->kind == LS_LOCAL) {
      lp_local l = w->k->locals[s->local];
      w->locals[s->local] = lp_local_add(w->k, l.name, l.dtype, l.count);
    }
    number_locals(w, s->body);
  }
}

static void copy_body(rewrite *w, const lp_stmt *s, lp_cursor *at) {
  for (; s && !w->k->arena->failed; s = s->next) {
    lp_stmt *t = lp_append(w->k, at, s->kind), *next = t->next;
    *t = *s;
    t->next = next;
    t->body = NULL;
    if (s->kind == LS_LOCAL || s->kind == LS_SET || s->kind == LS_REDUCE) t->local = s->local < w->n_locals ? w->locals[s->local] : s->local;
    t->index = rewrite_expr(w, s->index);
    t->value = rewrite_expr(w, s->value);
    t->guard = rewrite_expr(w, s->guard);
    lp_cursor inside = {&t->body};
    copy_body(w, s->body, &inside);
  }
}

/* The statements of body once for each value of the loop's variable. */
static lp_stmt *expand(lp_kernel *k, const lp_stmt *loop) {
  lp_stmt *first = NULL;
  lp_cursor at = {&first};
  for (int64_t v = loop->begin; v < loop->end && !k->arena->failed; v += loop->step) {
    rewrite w;
    if (!rewrite_start(&w, k, loop->var, lp_int(k, v))) return first;
    w.n_locals = k->n_locals;
    w.locals = malloc(((size_t)w.n_locals + 1) * sizeof *w.locals);
    if (!w.locals) {
      k->arena->failed = true;
    } else {
      for (int i = 0; i < w.n_locals; i++) w.locals[i] = i;
      number_locals(&w, loop->body);
      copy_body(&w, loop->body, &at);
    }
    free(w.locals);
    free(w.memo);
  }
  return first;
}

static lp_stmt *unroll_list(lp_kernel *k, lp_stmt *s) {
  lp_stmt *first = s, **link = &first;
  while (*link && !k->arena->failed) {
    s = *link;
    int64_t always = -1;
    if (s->guard && k->exprs[s->guard].kind == LX_CONST) always = k->exprs[s->guard].imm;
    lp_stmt *instead = s;
    if (s->kind == LS_FOR && s->unroll) instead = expand(k, s);
    else if ((s->kind == LS_IF || s->kind == LS_STORE) && always == 0) instead = NULL;
    else if (s->kind == LS_IF && always == 1) instead = s->body;
    else if (s->kind == LS_STORE && always == 1) s->guard = 0;
    if (instead == s) {
      s->body = unroll_list(k, s->body);
      link = &s->next;
      continue;
    }
    *link = instead;                                         /* looked at again, as it may hold other such loops */
    lp_stmt **end = link;
    while (*end) end = &(*end)->next;
    *end = s->next;
  }
  return first;
}

void lp_unroll(lp_kernel *k) { k->body = unroll_list(k, k->body); }

/* The check: scopes, types, sizes. */
typedef struct {
  const lp_kernel *k;
  tt_error *err;
  bool *var_open, *local_open, *seen;      /* seen: rows checked already in this statement's scope */
  bool in_vector;
} checker;

#define BAD(c, ...) (tt_fail((c)->err, TT_INTERNAL, __VA_ARGS__), false)

static bool check_expr(checker *c, lp_ref e) {
  const lp_kernel *k = c->k;
  if (!e || c->seen[e]) return true;
  if (e >= k->n_exprs) return BAD(c, "kernel %s: expression %u does not exist", k->name, e);
  c->seen[e] = true;
  const lp_expr *x = &k->exprs[e], *a = &k->exprs[x->a[0]], *b = &k->exprs[x->a[1]], *d = &k->exprs[x->a[2]];
  for (int i = 0; i < 3; i++)
    if (!check_expr(c, x->a[i])) return false;
  int64_t lo, hi;
  switch (x->kind) {
  case LX_CONST: return true;
  case LX_VAR: return c->var_open[x->imm] || BAD(c, "kernel %s: variable i%d is used outside of its loop", k->name, (int)x->imm);
  case LX_LOCAL:
    if (x->imm >= k->n_locals || !c->local_open[x->imm]) return BAD(c, "kernel %s: local l%d is used outside of its scope", k->name, (int)x->imm);
    if (!x->a[0]) return k->locals[x->imm].count == 1 || BAD(c, "kernel %s: local l%d is an array and has no index", k->name, (int)x->imm);
    lp_range(k, x->a[0], &lo, &hi);
    return (lo >= 0 && hi < k->locals[x->imm].count) || BAD(c, "kernel %s: an index of local l%d may leave it", k->name, (int)x->imm);
  case LX_LOAD:
    if (x->imm >= k->n_buffers || a->dtype != TT_I64 || !x->a[0]) return BAD(c, "kernel %s: load of b%d: no i64 index", k->name, (int)x->imm);
    if (x->a[1] && b->dtype != TT_BOOL) return BAD(c, "kernel %s: load of b%d: its guard is no bool", k->name, (int)x->imm);
    return !x->a[2] || d->dtype == x->dtype || BAD(c, "kernel %s: load of b%d: the value instead has another type", k->name, (int)x->imm);
  case LX_OP: {
    const ir_op_info *o = &ir_ops[x->op];
    int n = o->ew ? o->arity : x->op == IR_select ? 3 : x->op == IR_cast || x->op == IR_bitcast ? 1 : -1;
    for (int i = 0; i < 3; i++)
      if ((i < n) != (x->a[i] != 0)) return BAD(c, "kernel %s: %s has a wrong number of arguments", k->name, o->name);
    if (o->ew) {
      if (!tt_dtype_in(a->dtype, o->takes)) return BAD(c, "kernel %s: %s does not take %s", k->name, o->name, tt_dtype_name(a->dtype));
      if (x->dtype != (o->gives_bool ? TT_BOOL : a->dtype)) return BAD(c, "kernel %s: %s gives another type than %s", k->name, o->name, tt_dtype_name(x->dtype));
      return n < 2 || b->dtype == a->dtype || BAD(c, "kernel %s: arguments of %s are %s and %s", k->name, o->name, tt_dtype_name(a->dtype), tt_dtype_name(b->dtype));
    }
    if (x->op == IR_select && (a->dtype != TT_BOOL || b->dtype != x->dtype || d->dtype != x->dtype)) return BAD(c, "kernel %s: select of other types", k->name);
    return true;
  }
  case LX_FMA: return (a->dtype == x->dtype && b->dtype == x->dtype && tt_dtype_in(x->dtype, TT_REAL)) || BAD(c, "kernel %s: fma of other types", k->name);
  case LX_DOT: return (a->dtype == TT_U32 && b->dtype == TT_U32 && d->dtype == TT_F32) || BAD(c, "kernel %s: dot takes u32, u32, f32", k->name);
  case LX_PHILOX:
    return (a->dtype == TT_U64 && b->dtype == TT_U64 && d->dtype == TT_I64) || BAD(c, "kernel %s: random takes u64, u64, i64", k->name);
  default: return BAD(c, "kernel %s: expression %u is none", k->name, e);
  }
}

static bool check_list(checker *c, const lp_stmt *first) {
  const lp_kernel *k = c->k;
  for (const lp_stmt *s = first; s; s = s->next) {
    if (s->kind == LS_FOR || s == first) memset(c->seen, 0, k->n_exprs);
    if (!check_expr(c, s->index) || !check_expr(c, s->value) || !check_expr(c, s->guard)) return false;
    tt_dtype t = k->exprs[s->value].dtype;
    int64_t lo, hi;
    if (s->guard && s->kind != LS_TILES && k->exprs[s->guard].dtype != TT_BOOL) return BAD(c, "kernel %s: a guard is no bool", k->name);
    switch (s->kind) {
    case LS_FOR: {
      if (s->var <= 0 || s->var >= k->n_vars || c->var_open[s->var]) return BAD(c, "kernel %s: loop over i%d, which is open or does not exist", k->name, s->var);
      if (s->step < 1 || s->begin < 0 || (s->end > s->begin && s->end > lp_var_end(k, s->var))) return BAD(c, "kernel %s: loop over i%d leaves its range", k->name, s->var);
      bool is_vector = s->lanes > 1;
      if (is_vector && (c->in_vector || s->step != 1)) return BAD(c, "kernel %s: vector loop over i%d in another one, or with a step", k->name, s->var);
      c->in_vector |= is_vector;
      c->var_open[s->var] = true;
      if (!check_list(c, s->body)) return false;
      c->var_open[s->var] = false;
      c->in_vector &= !is_vector;
      memset(c->seen, 0, k->n_exprs);
      break;
    }
    case LS_LOCAL: case LS_SET: case LS_REDUCE:
      if (s->local < 0 || s->local >= k->n_locals || t != k->locals[s->local].dtype || !s->value) return BAD(c, "kernel %s: local l%d gets no value of its type", k->name, s->local);
      if (s->kind == LS_LOCAL) {
        c->local_open[s->local] = true;
        break;
      }
      if (!c->local_open[s->local]) return BAD(c, "kernel %s: local l%d is set outside of its scope", k->name, s->local);
      lo = hi = 0;
      if (s->index) lp_range(k, s->index, &lo, &hi);
      if (lo < 0 || hi >= k->locals[s->local].count) return BAD(c, "kernel %s: an index of local l%d may leave it", k->name, s->local);
      if (s->kind == LS_REDUCE && s->op != IR_add && s->op != IR_mul && s->op != IR_max && s->op != IR_min && s->op != IR_and && s->op != IR_or)
        return BAD(c, "kernel %s: reduction by %s", k->name, ir_ops[s->op].name);
      break;
    case LS_STORE:
      if (s->buffer < 0 || s->buffer >= k->n_buffers || !k->buffers[s->buffer].written) return BAD(c, "kernel %s: store to b%d, which is not written", k->name, s->buffer);
      if (!s->index || k->exprs[s->index].dtype != TT_I64 || t != k->buffers[s->buffer].dtype || !s->value)
        return BAD(c, "kernel %s: store to b%d of another type", k->name, s->buffer);
      break;
    case LS_TILES: {
      const lp_tiles *x = s->tiles;
      bool fits = (x->rows == 16 || x->rows == 32) && (x->lanes == 16 || x->lanes == 32) && x->pairs >= 16 && x->pairs % 16 == 0 && !c->in_vector;
      bool typed = s->index && s->value && s->guard && t == TT_I64 && k->exprs[s->index].dtype == TT_I64 && k->exprs[s->guard].dtype == TT_I64;
      if (!fits || !typed || k->buffers[x->a].dtype != TT_U32 || k->buffers[x->b].dtype != TT_U32 || k->buffers[x->c].dtype != TT_F32 || !k->buffers[x->c].written)
        return BAD(c, "kernel %s: tiles of %d x %d x %d or of other types", k->name, x->rows, x->lanes, x->pairs);
      break;
    }
    case LS_PREFETCH:
      if (s->buffer < 0 || s->buffer >= k->n_buffers || !s->index || k->exprs[s->index].dtype != TT_I64) return BAD(c, "kernel %s: prefetch of b%d: no i64 index", k->name, s->buffer);
      break;
    case LS_IF:
      if (!s->guard) return BAD(c, "kernel %s: if without a condition", k->name);
      if (!check_list(c, s->body)) return false;
      memset(c->seen, 0, k->n_exprs);
      break;
    default: return BAD(c, "kernel %s: a statement is none", k->name);
    }
  }
  for (const lp_stmt *s = first; s; s = s->next)
    if (s->kind == LS_LOCAL) c->local_open[s->local] = false;
  return true;
}

bool lp_check(const lp_kernel *k, tt_error *err) {
  if (k->arena->failed) return tt_fail(err, TT_NO_MEMORY, "kernel %s: no memory to make it\n  fix: compile a smaller model, or free memory", k->name), false;
  checker c = {.k = k, .err = err};
  char *flags = calloc(1, (size_t)k->n_vars + (size_t)k->n_locals + k->n_exprs);
  if (!flags) return tt_fail(err, TT_NO_MEMORY, "kernel %s: no memory to check it", k->name), false;
  c.var_open = (bool *)flags;
  c.local_open = c.var_open + k->n_vars;
  c.seen = c.local_open + k->n_locals;
  c.var_open[0] = c.var_open[k->begin] = true;
  bool ok = check_list(&c, k->body);
  free(flags);
  return ok;
}
