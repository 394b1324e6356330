/* loops_index.c: index arithmetic. An i64 expression is kept as a sum: terms times constants, largest constant first, then a
 * constant; a term is anything that is not a sum (a variable, a quotient, a load ...). Quotients and remainders by constants
 * are taken apart by what is known of ranges:
 *
 *     (i*4 + j)/4 -> i              when 0 <= j < 4
 *     (i*4 + j)%4 -> j
 *     (x/2)/3     -> x/6
 *     (x%12)/4    -> (x/4)%3
 *     x/4*4 + x%4 -> x              of any sign
 *
 * Sums are exact even where numbers wrap; everything else is done only where ranges say that nothing does. */
#include <string.h>

#include "loops_inner.h"

enum { MAX_TERMS = 24 };

typedef struct {
  int n;
  struct { lp_ref term; int64_t by; } t[MAX_TERMS];
  int64_t constant;
  bool full;                   /* more terms than fit: the sum stays as it was made */
} sum;

static int64_t wrap_add(int64_t a, int64_t b) { return (int64_t)((uint64_t)a + (uint64_t)b); }
static int64_t wrap_mul(int64_t a, int64_t b) { return (int64_t)((uint64_t)a * (uint64_t)b); }
static int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0); }       /* b > 0 */

static void sum_term(sum *s, lp_ref term, int64_t by) {
  for (int i = 0; i < s->n; i++) {
    if (s->t[i].term != term) continue;
    s->t[i].by = wrap_add(s->t[i].by, by);
    if (!s->t[i].by) s->t[i] = s->t[--s->n];
    return;
  }
  if (s->n == MAX_TERMS) {
    s->full = true;
    return;
  }
  if (by) s->t[s->n].term = term, s->t[s->n++].by = by;
}

/* s += by * e */
static void sum_add(const lp_kernel *k, sum *s, lp_ref e, int64_t by) {
  const lp_expr *x = &k->exprs[e];
  int64_t v;
  if (x->kind == LX_CONST) {
    s->constant = wrap_add(s->constant, wrap_mul(by, x->imm));
  } else if (x->kind == LX_OP && x->op == IR_add) {
    sum_add(k, s, x->a[0], by);
    sum_add(k, s, x->a[1], by);
  } else if (x->kind == LX_OP && x->op == IR_mul && lp_is_int(k, x->a[1], &v)) {
    sum_add(k, s, x->a[0], wrap_mul(by, v));
  } else {
    sum_term(s, e, by);
  }
}

/* Range of by*term. */
static bool scaled(const lp_kernel *k, lp_ref term, int64_t by, int64_t *lo, int64_t *hi) {
  const lp_fact *f = lp_fact_of(k, term);
  if (!lp_known(f) || __builtin_mul_overflow(f->lo, by, lo) || __builtin_mul_overflow(f->hi, by, hi)) return false;
  if (by < 0) {
    int64_t t = *lo;
    *lo = *hi, *hi = t;
  }
  return true;
}

/* Range of a sum; false when it is not known or may wrap on the way. */
static bool sum_range(const lp_kernel *k, const sum *s, int64_t *lo, int64_t *hi) {
  *lo = *hi = s->constant;
  for (int i = 0; i < s->n; i++) {
    int64_t a, b;
    if (!scaled(k, s->t[i].term, s->t[i].by, &a, &b) || __builtin_add_overflow(*lo, a, lo) || __builtin_add_overflow(*hi, b, hi)) return false;
  }
  return !s->full;
}

static bool is_op(const lp_kernel *k, lp_ref e, ir_op op, lp_ref *x, int64_t *by) {
  const lp_expr *e_ = &k->exprs[e];
  if (e_->kind != LX_OP || e_->op != op || e_->dtype != TT_I64 || !lp_is_int(k, e_->a[1], by)) return false;
  *x = e_->a[0];
  return true;
}

/* x%c*b + x/c*(b*c) -> x*b, and x%c*b + x/c%d*(b*c) -> x%(c*d)*b, of any sign, as quotients are truncated. The remainder may be written of another number than the
 * quotient is, one that is >= 0 and has the same remainder. */
static bool sum_join(lp_kernel *k, sum *s) {
  for (int i = 0; i < s->n; i++) {
    lp_ref x, y;
    int64_t c, d, by = s->t[i].by;
    if (!is_op(k, s->t[i].term, IR_fmod, &x, &c) || c <= 0) continue;
    lp_ref quotient = lp_div(k, x, c);
    for (int j = 0; j < s->n; j++) {
      if (s->t[j].by != wrap_mul(by, c)) continue;
      if (is_op(k, s->t[j].term, IR_fmod, &y, &d) && d > 0 && y == quotient && !__builtin_mul_overflow(c, d, &d)) {
        lp_ref upper = s->t[j].term;
        sum_term(s, s->t[i].term, wrap_mul(by, -1));
        sum_term(s, upper, wrap_mul(wrap_mul(by, c), -1));
        sum_add(k, s, lp_mod(k, x, d), by);
        return true;
      }
      bool other = s->t[j].term != quotient && is_op(k, s->t[j].term, IR_div, &y, &d) && d == c && lp_fact_of(k, y)->lo >= 0 && lp_mod(k, y, c) == s->t[i].term;
      if (other) x = y, quotient = s->t[j].term;
      if (s->t[j].term != quotient) continue;
      sum_term(s, s->t[i].term, wrap_mul(by, -1));
      sum_term(s, quotient, wrap_mul(wrap_mul(by, c), -1));
      sum_add(k, s, x, by);
      return true;
    }
  }
  return false;
}

static lp_ref sum_make(lp_kernel *k, sum *s) {
  while (sum_join(k, s)) {
  }
  for (int i = 1; i < s->n; i++)                            /* largest factor first, then in the order of making */
    for (int j = i; j > 0; j--) {
      int64_t a = s->t[j - 1].by, b = s->t[j].by;
      if (a > b || (a == b && s->t[j - 1].term < s->t[j].term)) break;
      lp_ref t = s->t[j].term;
      s->t[j].term = s->t[j - 1].term, s->t[j].by = a;
      s->t[j - 1].term = t, s->t[j - 1].by = b;
    }
  sum part = {.n = 0};
  lp_ref r = 0;
  for (int i = 0; i <= s->n; i++) {
    if (i == s->n && !s->constant && r) break;
    lp_ref e;
    int64_t lo = INT64_MIN, hi = INT64_MAX;
    if (i < s->n) {
      e = s->t[i].term;
      if (s->t[i].by != 1) {
        if (!scaled(k, e, s->t[i].by, &lo, &hi)) lo = INT64_MIN, hi = INT64_MAX;
        e = lp_raw(k, IR_mul, TT_I64, e, lp_int(k, s->t[i].by), 0, lo, hi);
      }
      part.t[part.n++] = (__typeof__(part.t[0])){s->t[i].term, s->t[i].by};
    } else {
      e = lp_int(k, s->constant);
      part.constant = s->constant;
    }
    if (!sum_range(k, &part, &lo, &hi)) lo = INT64_MIN, hi = INT64_MAX;
    r = r ? lp_raw(k, IR_add, TT_I64, r, e, 0, lo, hi) : e;
  }
  return r;
}

lp_ref lp_add(lp_kernel *k, lp_ref a, lp_ref b) {
  sum s = {.n = 0};
  sum_add(k, &s, a, 1);
  sum_add(k, &s, b, 1);
  return s.full ? lp_raw(k, IR_add, TT_I64, a, b, 0, INT64_MIN, INT64_MAX) : sum_make(k, &s);
}

static lp_ref sub(lp_kernel *k, lp_ref a, lp_ref b) {
  sum s = {.n = 0};
  sum_add(k, &s, a, 1);
  sum_add(k, &s, b, -1);
  return s.full ? lp_raw(k, IR_sub, TT_I64, a, b, 0, INT64_MIN, INT64_MAX) : sum_make(k, &s);
}

lp_ref lp_mul(lp_kernel *k, lp_ref a, int64_t b) {
  sum s = {.n = 0};
  sum_add(k, &s, a, b);
  return s.full ? lp_raw(k, IR_mul, TT_I64, a, lp_int(k, b), 0, INT64_MIN, INT64_MAX) : sum_make(k, &s);
}

static int64_t gcd(int64_t a, int64_t b) {
  if (a < 0) a = -a;
  while (b) {
    int64_t t = a % b;
    a = b, b = t;
  }
  return a;
}

/* x (>= 0) = c*whole + rest, with 0 <= lo <= rest <= hi and lo < c. */
static bool split(lp_kernel *k, lp_ref x, int64_t c, sum *whole, sum *rest, int64_t *lo, int64_t *hi) {
  sum s = {.n = 0};
  sum_add(k, &s, x, 1);
  if (!sum_range(k, &s, lo, hi) || *lo < 0) return false;
  *whole = *rest = (sum){.n = 0};
  for (int i = 0; i < s.n; i++) {
    int64_t by = s.t[i].by;
    if (by % c == 0) sum_term(whole, s.t[i].term, by / c);
    else sum_term(rest, s.t[i].term, by);
  }
  whole->constant = floor_div(s.constant, c);
  rest->constant = s.constant - whole->constant * c;
  if (!sum_range(k, rest, lo, hi)) return false;
  int64_t shift = floor_div(*lo, c);
  whole->constant += shift;
  rest->constant -= shift * c;
  *lo -= shift * c, *hi -= shift * c;
  return true;
}

/* Divides rest by the common factor g of it and c; gives g, and what of its constant is left over. */
static int64_t reduce(const lp_kernel *k, sum *rest, int64_t c, int64_t *left) {
  int64_t g = c;
  for (int i = 0; i < rest->n; i++) g = gcd(rest->t[i].by, g);
  *left = 0;
  if (g == 1) return 1;
  sum small = *rest;
  for (int i = 0; i < small.n; i++) small.t[i].by /= g;
  small.constant = floor_div(rest->constant, g);
  int64_t lo, hi;
  if (!sum_range(k, &small, &lo, &hi) || lo < 0) return 1;
  *left = rest->constant - small.constant * g;
  *rest = small;
  return g;
}

lp_ref lp_div(lp_kernel *k, lp_ref a, int64_t c) {
  sum whole, rest;
  int64_t lo, hi, left, v, m;
  if (c == 1) return a;
  if (lp_is_int(k, a, &v)) return lp_int(k, c == 0 ? 0 : c == -1 ? wrap_mul(v, -1) : v / c);
  if (c <= 0 || !split(k, a, c, &whole, &rest, &lo, &hi)) return lp_raw(k, IR_div, TT_I64, a, lp_int(k, c), 0, INT64_MIN, INT64_MAX);
  if (hi >= c) {
    int64_t g = reduce(k, &rest, c, &left);
    c /= g, lo = (lo - left) / g, hi = (hi - left) / g;
    lp_ref x = sum_make(k, &rest), y, q;
    if (c == 1) {
      q = x;
    } else if (is_op(k, x, IR_div, &y, &v) && v > 0 && lp_fact_of(k, y)->lo >= 0 && !__builtin_mul_overflow(v, c, &m)) {
      q = lp_div(k, y, m);
    } else if (is_op(k, x, IR_fmod, &y, &v) && v > 0 && v % c == 0 && lp_fact_of(k, y)->lo >= 0) {
      q = lp_mod(k, lp_div(k, y, c), v / c);
    } else {
      q = lp_raw(k, IR_div, TT_I64, x, lp_int(k, c), 0, lo / c, hi / c);
    }
    sum_add(k, &whole, q, 1);
  }
  return sum_make(k, &whole);
}

lp_ref lp_mod(lp_kernel *k, lp_ref a, int64_t c) {
  sum whole, rest;
  int64_t lo, hi, left, v;
  if (c == 1) return lp_int(k, 0);
  if (lp_is_int(k, a, &v)) return lp_int(k, c == 0 || c == -1 ? 0 : v % c);
  if (c <= 0 || !split(k, a, c, &whole, &rest, &lo, &hi)) return lp_raw(k, IR_fmod, TT_I64, a, lp_int(k, c), 0, INT64_MIN, INT64_MAX);
  if (hi < c) return sum_make(k, &rest);
  for (int i = 0; i < rest.n; i++) {                          /* (x % (c*d)) % c -> x % c, for any term */
    lp_ref x;
    int64_t m, by = rest.t[i].by;
    if (!is_op(k, rest.t[i].term, IR_fmod, &x, &m) || m <= 0 || by < 0 || lp_fact_of(k, x)->lo < 0 || wrap_mul(m, by) % c) continue;
    sum more = rest;
    sum_term(&more, rest.t[i].term, -by);
    sum_add(k, &more, x, by);
    int64_t more_lo, more_hi;
    if (sum_range(k, &more, &more_lo, &more_hi) && more_lo >= 0) return lp_mod(k, sum_make(k, &more), c);
  }
  int64_t g = reduce(k, &rest, c, &left);
  c /= g;
  lp_ref x = sum_make(k, &rest);
  int64_t end = (hi - left) / g;
  lp_ref r = c == 1 ? lp_int(k, 0) : lp_raw(k, IR_fmod, TT_I64, x, lp_int(k, c), 0, 0, end < c - 1 ? end : c - 1);
  return lp_add(k, lp_mul(k, r, g), lp_int(k, left));
}

/* What ranges say of a comparison: 0, 1, or -1. */
static int compare(lp_kernel *k, ir_op op, lp_ref a, lp_ref b) {
  if (a == b) return op == IR_eq || op == IR_le || op == IR_ge;
  if (!lp_known(lp_fact_of(k, a)) || !lp_known(lp_fact_of(k, b))) return -1;
  sum s = {.n = 0};
  sum_add(k, &s, a, 1);
  sum_add(k, &s, b, -1);
  int64_t lo, hi;
  if (!sum_range(k, &s, &lo, &hi)) return -1;
  switch (op) {
  case IR_lt: return hi < 0 ? 1 : lo >= 0 ? 0 : -1;
  case IR_le: return hi <= 0 ? 1 : lo > 0 ? 0 : -1;
  case IR_gt: return lo > 0 ? 1 : hi <= 0 ? 0 : -1;
  case IR_ge: return lo >= 0 ? 1 : hi < 0 ? 0 : -1;
  case IR_eq: return lo > 0 || hi < 0 ? 0 : lo == 0 && hi == 0 ? 1 : -1;
  default: return lo > 0 || hi < 0 ? 1 : lo == 0 && hi == 0 ? 0 : -1;
  }
}

lp_ref lp_index_op(lp_kernel *k, ir_op op, tt_dtype result, lp_ref a, lp_ref b) {
  int64_t v;
  int known;
  switch (op) {
  case IR_add: return lp_add(k, a, b);
  case IR_sub: return sub(k, a, b);
  case IR_neg: return lp_mul(k, a, -1);
  case IR_mul:
    if (lp_is_int(k, b, &v)) return lp_mul(k, a, v);
    if (lp_is_int(k, a, &v)) return lp_mul(k, b, v);
    return 0;
  case IR_div: return lp_is_int(k, b, &v) ? lp_div(k, a, v) : 0;
  case IR_fmod: return lp_is_int(k, b, &v) ? lp_mod(k, a, v) : 0;
  case IR_max:
  case IR_min:
    known = compare(k, IR_ge, a, b);
    if (known >= 0) return (op == IR_max) == (known == 1) ? a : b;
    known = compare(k, IR_le, a, b);
    if (known >= 0) return (op == IR_max) == (known == 1) ? b : a;
    lp_fact x = *lp_fact_of(k, a), y = *lp_fact_of(k, b);
    if (op == IR_max) return lp_raw(k, op, result, a, b, 0, x.lo > y.lo ? x.lo : y.lo, x.hi > y.hi ? x.hi : y.hi);
    return lp_raw(k, op, result, a, b, 0, x.lo < y.lo ? x.lo : y.lo, x.hi < y.hi ? x.hi : y.hi);
  case IR_eq: case IR_ne: case IR_lt: case IR_le: case IR_gt: case IR_ge:
    known = compare(k, op, a, b);
    return known < 0 ? 0 : lp_const_bits(k, TT_BOOL, known);
  default: return 0;
  }
}
