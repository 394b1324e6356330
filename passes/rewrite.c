/* rewrite.c: the rules that ir_emit asks before it makes a row, and small texts as builders of graphs.
 *
 *     RULE("add(?x, neg(?y))", "sub(?x, ?y)", NUM)       a pattern over rows, and what to make instead
 *     pass_build_text(g, "mul(g, sub(1, y))", ...)       the same language with names bound by the caller
 *
 * Patterns are matched straight from their text: the root's name is compared first, which turns almost all of them away, and
 * there is nothing to compile or to keep. What text cannot say is in rewrite_computed.c. */
#include "passes.h"

#include <math.h>
#include <string.h>

typedef struct { const char *pattern, *replacement; int types; } rule_row;
#define NUM TT_NUM
#define REAL TT_REAL
#define SINT TT_SINT
#define INT TT_INT
#define BITS TT_BITS
#define BOOLEAN TT_BOOLEAN
#define ANY TT_ANY
#define RULE(pattern, replacement, types) {pattern, replacement, types},
static const rule_row rule_table[] = {
#include "rules.def"
};
#undef RULE
#undef NUM
#undef REAL
#undef SINT
#undef INT
#undef BITS
#undef BOOLEAN
#undef ANY
enum { N_RULES = sizeof rule_table / sizeof rule_table[0] };

/* ---- the language: words, numbers ---- */

static const char *blank(const char *p) {
  while (*p == ' ' || *p == '\n') p++;
  return p;
}
static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static size_t word_length(const char *p) {
  size_t n = 0;
  while (is_letter(p[n]) || is_digit(p[n])) n++;
  return n;
}
static bool word_is(const char *p, size_t n, const char *word) { return strlen(word) == n && !memcmp(p, word, n); }

/* strtod, but for the same text the same number in every locale. */
static double read_number(const char **text) {
  const char *p = *text;
  bool negative = *p == '-';
  if (negative) p++;
  long double m = 0;
  int e = 0;
  for (; is_digit(*p); p++) m = m * 10 + (*p - '0');
  if (*p == '.')
    for (p++; is_digit(*p); p++, e--) m = m * 10 + (*p - '0');
  if (*p == 'e') {
    bool down = *++p == '-';
    if (down || *p == '+') p++;
    int x = 0;
    for (; is_digit(*p) && x < 10000; p++) x = x * 10 + (*p - '0');
    e += down ? -x : x;
  }
  *text = p;
  m = e < 0 ? m / powl(10, -e) : m * powl(10, e);
  return (double)(negative ? -m : m);
}
static bool starts_number(const char *p) { return is_digit(p[0]) || (p[0] == '-' && is_digit(p[1])); }

bool pass_read_number(const char *text, double *value) {
  if (!starts_number(text) && !(text[0] == '.' && is_digit(text[1]))) return false;
  *value = read_number(&text);
  return !*text;
}

/* ---- matching ---- */

enum { MAX_BINDINGS = 16 };
typedef struct { const char *name; size_t length; ir_ref value; const int64_t *words; int n_words; } binding;   /* words: an attribute's */
typedef struct { const ir_graph *g; binding bound[MAX_BINDINGS]; int n; } match;

static const binding *look_up(const match *m, const char *name, size_t length) {
  for (int i = 0; i < m->n; i++)
    if (m->bound[i].length == length && !memcmp(m->bound[i].name, name, length)) return &m->bound[i];
  return NULL;
}

/* The end of the term at p: its ',' or ')'. */
static const char *skip_term(const char *p) {
  for (int depth = 0; *p; p++) {
    if (*p == '(') depth++;
    if (!depth && (*p == ',' || *p == ')')) break;
    if (*p == ')') depth--;
  }
  return p;
}

static bool commutes(ir_op op) {
  return op == IR_add || op == IR_mul || op == IR_max || op == IR_min || op == IR_and || op == IR_or || op == IR_xor || op == IR_eq || op == IR_ne;
}

/* Attribute `name` among the words of a row: its first word and how many there are. */
static const int64_t *attribute(ir_op op, const int64_t *words, const char *name, size_t length, int *n) {
  for (int i = 0; i < 8 && ir_ops[op].attrs[i].kind != IR_ATTR_END; i++) {
    *n = ir_ops[op].attrs[i].kind == IR_ATTR_INTS ? 1 + (int)words[0] : 1;
    if (word_is(name, length, ir_ops[op].attrs[i].name)) return words;
    words += *n;
  }
  return NULL;
}

static bool match_term(match *m, const char *p, ir_ref r);

/* p: what stands between the parentheses of the pattern of `op`. */
static bool match_inside(match *m, const char *p, ir_op op, const ir_ref *args, uint32_t n_args, const int64_t *words) {
  const char *terms[3];
  uint32_t n = 0;
  for (;; p++) {
    p = blank(p);
    size_t length = word_length(p);
    if (length && p[length] == '=') {
      int count = 0;
      const int64_t *w = attribute(op, words, p, length, &count);
      p += length + 1;
      if (!w) return false;
      if (*p == '?') {
        const binding *b = look_up(m, p + 1, word_length(p + 1));
        if (b && (b->n_words != count || memcmp(b->words, w, (size_t)count * sizeof *w))) return false;
        if (!b) m->bound[m->n++] = (binding){p + 1, word_length(p + 1), 0, w, count};
      } else {
        const char *q = p;
        if (count != 1 || (double)*w != read_number(&q)) return false;
      }
    } else if (n < 3) {
      terms[n++] = p;
    }
    p = skip_term(p);
    if (*p != ',') break;
  }
  if (n != n_args) return false;
  int before = m->n;
  bool ok = true;
  for (uint32_t i = 0; i < n && ok; i++) ok = match_term(m, terms[i], args[i]);
  if (!ok && n == 2 && commutes(op)) {
    m->n = before;
    ok = match_term(m, terms[0], args[1]) && match_term(m, terms[1], args[0]);
  }
  return ok;
}

static bool match_term(match *m, const char *p, ir_ref r) {
  if (*p == '?') {
    size_t length = word_length(p + 1);
    const binding *b = look_up(m, p + 1, length);
    if (b) return b->value == r;
    m->bound[m->n++] = (binding){p + 1, length, r, NULL, 0};
    return true;
  }
  if (starts_number(p)) {
    double v;
    return ir_is_splat(m->g, r, &v) && v == read_number(&p);
  }
  const ir_node *n = ir_at(m->g, r);
  size_t length = word_length(p);
  return word_is(p, length, ir_ops[n->op].name) && match_inside(m, p + length + 1, n->op, n->args, n->n_args, n->words);
}

/* ---- building ---- */

typedef struct { bool is_number; double number; ir_ref value; } value;
typedef struct { ir_graph *g; const char *p, *text; const pass_binding *names; int n_names; const match *bound; } builder;

static value wrong(builder *b, const char *what, size_t length) {
  tt_bug(b->g, "the text \"%s\" goes wrong at \"%.*s\"", b->text, (int)length, what);
  return (value){0};
}

static double fold(ir_op op, const double *a, uint32_t n, bool *ok) {
  *ok = true;
  if (n == 1 && op == IR_neg) return -a[0];
  if (n == 1 && op == IR_sqrt) return sqrt(a[0]);
  if (n == 2 && op == IR_max) return fmax(a[0], a[1]);
  if (n == 2 && op == IR_gt) return a[0] > a[1];
  if (n == 2 && op == IR_add) return a[0] + a[1];
  if (n == 2 && op == IR_sub) return a[0] - a[1];
  if (n == 2 && op == IR_mul) return a[0] * a[1];
  if (n == 2 && op == IR_div) return a[0] / a[1];
  *ok = false;
  return 0;
}

/* Operands of one elementwise row: numbers take the type of the others, and so does a rank-0 f64 (a learning rate, a step). */
static bool same_types(builder *b, value *a, uint32_t n) {
  ir_ref model = 0;
  for (uint32_t i = 0; i < n; i++)
    if (!a[i].is_number && (!model || (ir_at(b->g, model)->rank == 0 && ir_at(b->g, model)->dtype == TT_F64))) model = a[i].value;
  for (uint32_t i = 0; i < n; i++) {
    if (a[i].is_number) a[i].value = model ? ir_like(b->g, model, a[i].number) : ir_scalar(b->g, TT_F64, a[i].number);
    else if (ir_at(b->g, a[i].value)->rank == 0 && ir_at(b->g, a[i].value)->dtype == TT_F64) a[i].value = ir_cast(b->g, a[i].value, ir_at(b->g, model)->dtype);
    a[i].is_number = false;
    if (!a[i].value) return false;
  }
  return true;
}

static value build(builder *b, bool skip);

/* The row of op with operands and attributes from b->p, which stands after its '('. */
static value build_row(builder *b, ir_op op, bool skip) {
  enum { MAX_WORDS = 64 };
  const char *start = b->p;
  value a[3] = {0};
  uint32_t n = 0;
  int64_t words[MAX_WORDS];
  uint32_t n_words = 0;
  for (int i = 0; i < 8 && ir_ops[op].attrs[i].kind != IR_ATTR_END; i++) {       /* each in its turn, wherever the text has it */
    bool found = false;
    for (const char *p = start; !found; p++) {
      p = blank(p);
      size_t length = word_length(p);
      if (p[length] == '=' && word_is(p, length, ir_ops[op].attrs[i].name)) {
        p += length + 1;
        const binding *w = *p == '?' && b->bound ? look_up(b->bound, p + 1, word_length(p + 1)) : NULL;
        if (w && n_words + (uint32_t)w->n_words <= MAX_WORDS) {
          memcpy(words + n_words, w->words, (size_t)w->n_words * sizeof *words);
          n_words += (uint32_t)w->n_words;
        } else if (starts_number(p) && ir_ops[op].attrs[i].kind == IR_ATTR_INT && n_words < MAX_WORDS) {
          words[n_words++] = (int64_t)read_number(&p);
        } else {
          return wrong(b, p, strlen(p));
        }
        found = true;
      }
      p = skip_term(p);
      if (*p != ',') break;
    }
    if (!found && !skip) return wrong(b, start, strlen(start));
  }
  for (;; b->p++) {
    b->p = blank(b->p);
    if (b->p[word_length(b->p)] == '=') b->p = skip_term(b->p);
    else if (n < 3) a[n++] = build(b, skip);
    b->p = blank(b->p);
    if (*b->p != ',') break;
  }
  if (*b->p != ')') return wrong(b, b->p, strlen(b->p));
  b->p++;
  if (skip || b->g->error.status) return (value){0};
  if (n != (uint32_t)ir_ops[op].arity) return wrong(b, start, strlen(start));

  bool numbers = true;
  for (uint32_t i = 0; i < n; i++) numbers &= a[i].is_number;
  if (numbers) {
    double v[3] = {a[0].number, a[1].number, a[2].number};
    bool ok;
    double folded = fold(op, v, n, &ok);
    if (ok) return (value){.is_number = true, .number = folded};
  }
  if (op == IR_select) {
    if (a[0].is_number) return a[0].number != 0 ? a[1] : a[2];
    if (!same_types(b, a + 1, 2)) return (value){0};
    return (value){.value = ir_select(b->g, a[0].value, a[1].value, a[2].value)};
  }
  if (!same_types(b, a, n)) return (value){0};
  if (ir_ops[op].ew && n == 2) return (value){.value = ir_ew2(b->g, op, a[0].value, a[1].value)};
  return (value){.value = ir_emit(b->g, op, (ir_ref[]){a[0].value, a[1].value, a[2].value}, n, words, n_words)};
}

/* Words of the language that are no op: norm(x): f64[], the 2-norm over all elements; bf16(x): x rounded to bfloat16. */
static value build_function(builder *b, const char *name, size_t length, bool skip) {
  bool norm = word_is(name, length, "norm");
  if (!norm && !word_is(name, length, "bf16")) return wrong(b, name, length);
  value x = build(b, skip);
  b->p = blank(b->p);
  if (*b->p != ')') return wrong(b, b->p, strlen(b->p));
  b->p++;
  if (skip || b->g->error.status) return (value){0};
  if (!x.value) return wrong(b, name, length);
  tt_dtype t = (tt_dtype)ir_at(b->g, x.value)->dtype;
  if (!norm) return (value){.value = ir_cast(b->g, ir_cast(b->g, x.value, TT_BF16), t)};
  ir_ref wide = t == TT_F64 ? x.value : ir_cast(b->g, x.value, TT_F32), squares = ir_ew2(b->g, IR_mul, wide, wide);
  return (value){.value = ir_ew1(b->g, IR_sqrt, ir_cast(b->g, ir_reduce(b->g, IR_sum, squares, NULL, 0, false), TT_F64))};
}

static value build_primary(builder *b, bool skip) {
  b->p = blank(b->p);
  if (starts_number(b->p)) return (value){.is_number = true, .number = read_number(&b->p)};
  bool variable = *b->p == '?';
  const char *name = b->p + variable;
  size_t length = word_length(name);
  if (!length) return wrong(b, b->p, strlen(b->p));
  b->p = name + length;
  if (!variable && *b->p == '(') {
    ir_op op = ir_op_by_name(name, length);
    b->p++;
    return op ? build_row(b, op, skip) : build_function(b, name, length, skip);
  }
  if (skip) return (value){0};
  const binding *bound = variable && b->bound ? look_up(b->bound, name, length) : NULL;
  if (bound && bound->value) return (value){.value = bound->value};
  for (int i = 0; i < b->n_names; i++)
    if (word_is(name, length, b->names[i].name)) return (value){b->names[i].is_number, b->names[i].number, b->names[i].value};
  return wrong(b, name, length);
}

/* Reads over it without building anything when skip is set: the branch of a choice that is not taken. */
static value build(builder *b, bool skip) {
  value v = build_primary(b, skip);
  b->p = blank(b->p);
  if (*b->p != '?' || b->g->error.status) return v;
  if (!skip && !v.is_number) return wrong(b, b->p, strlen(b->p));
  bool yes = v.number != 0;
  b->p++;
  value first = build(b, skip || !yes);
  b->p = blank(b->p);
  if (*b->p != ':') return wrong(b, b->p, strlen(b->p));
  b->p++;
  value second = build(b, skip || yes);
  return yes ? first : second;
}

static value build_all(builder *b) {
  value v = build(b, false);
  b->p = blank(b->p);
  if (!b->g->error.status && *b->p) return wrong(b, b->p, strlen(b->p));
  return v;
}

ir_ref pass_build_text(ir_graph *g, const char *text, const pass_binding *names, int n_names) {
  builder b = {g, text, text, names, n_names, NULL};
  value v = build_all(&b);
  if (g->error.status) return 0;
  return v.is_number ? ir_scalar(g, TT_F64, v.number) : v.value;
}

ir_ref rewrite_rules(ir_graph *g, ir_op op, const ir_ref *args, uint32_t n_args, const int64_t *words, uint32_t n_words) {
  if (!n_args) return 0;
  const char *name = ir_ops[op].name;
  size_t length = strlen(name);
  for (int i = 0; i < N_RULES; i++) {
    const rule_row *rule = &rule_table[i];
    if (rule->pattern[0] != name[0] || strncmp(rule->pattern, name, length) || rule->pattern[length] != '(') continue;
    if (!tt_dtype_in(ir_at(g, args[0])->dtype, rule->types)) continue;
    match m = {.g = g};
    if (!match_inside(&m, rule->pattern + length + 1, op, args, n_args, words)) continue;
    builder b = {g, rule->replacement, rule->replacement, NULL, 0, &m};
    value v = build_all(&b);
    if (g->error.status || !v.is_number) return v.value;
    tt_dtype t;
    tt_shape s;
    return ir_infer(g, op, args, n_args, words, n_words, &t, &s) ? ir_full(g, t, s, v.number) : 0;
  }
  return rewrite_computed(g, op, args, n_args, words, n_words);
}
