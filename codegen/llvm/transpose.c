/* transpose.c: columns of a matrix that a vector loop walks along rows. Where W lanes stand a stride apart, one column is W loads of an
 * element; but an unrolled loop asks for neighbouring columns too,
 *
 *     for v vec 8 { y[v] = x[v*1000 + 0];  y[1000 + v] = x[v*1000 + 1];  y[2000 + v] = x[v*1000 + 2]; ... }
 *
 * so as many columns as 16 bytes hold are loaded at once: lane block g of vector r is 16 bytes of row 4g + r, and one transposition inside
 * of blocks of 16 bytes, which every vector width has, gives the columns. Stores of neighbouring columns go the same way back.
 *
 * Columns that are loaded before anybody asks must lie inside of the buffer: the ranges of the index say so. */
#include "emit.h"

enum { BLOCK = 16, MOST = 64 };

/* index = rest + constant */
static lp_ref split(em *e, lp_ref index, int64_t *constant) {
  const lp_expr *x = em_expr(e, index), *c = x->a[1] ? em_expr(e, x->a[1]) : NULL;
  *constant = 0;
  if (x->kind != LX_OP || x->op != IR_add || !c || c->kind != LX_CONST) return index;
  *constant = c->imm;
  return x->a[0];
}

static int columns_for(em *e, tt_dtype t) {
  int64_t size = (int64_t)tt_dtype_size(t);
  int n = size == 4 || size == 8 ? BLOCK / (int)size : 0, width = e->kernel->width;
  return n && width >= n && width % n == 0 && width <= 256 && e->kernel->active == width ? n : 0;
}

/* n vectors, as squares of n x n elements side by side: each square is transposed. */
static void transpose(em *e, em_val *v, int n) {
  int width = em_width(v[0]), lanes[4][256];
  if (n == 2) {
    for (int i = 0; i < width; i++) lanes[0][i] = i / 2 * 2 + i % 2 * width, lanes[1][i] = lanes[0][i] + 1;
    em_val a = em_shuffle(e, v[0], v[1], lanes[0], width), b = em_shuffle(e, v[0], v[1], lanes[1], width);
    v[0] = a, v[1] = b;
    return;
  }
  for (int i = 0; i < width; i++) {
    int first = i / 4 * 4, k = i % 4;
    lanes[0][i] = first + k / 2 + k % 2 * width, lanes[1][i] = lanes[0][i] + 2;       /* a0 b0 a1 b1; a2 b2 a3 b3 */
    lanes[2][i] = first + k % 2 + k / 2 * width, lanes[3][i] = lanes[2][i] + 2;       /* a0 a1 b0 b1; a2 a3 b2 b3 */
  }
  em_val low[2], high[2];
  for (int i = 0; i < 2; i++) {
    low[i] = em_shuffle(e, v[2 * i], v[2 * i + 1], lanes[0], width);
    high[i] = em_shuffle(e, v[2 * i], v[2 * i + 1], lanes[1], width);
  }
  for (int i = 0; i < 2; i++) {
    v[i] = em_shuffle(e, low[0], low[1], lanes[2 + i], width);
    v[2 + i] = em_shuffle(e, high[0], high[1], lanes[2 + i], width);
  }
}

static em_val join(em *e, em_val *parts, int n) {
  int lanes[256];
  for (int i = 0; i < 256; i++) lanes[i] = i;
  for (; n > 1; n = (n + 1) / 2)
    for (int i = 0; i < n; i += 2) {
      int width = em_width(parts[i]);
      parts[i / 2] = em_shuffle(e, parts[i], parts[i + 1], lanes, 2 * width);
    }
  return parts[0];
}

static em_val pointer_at(em *e, int64_t buffer, em_val base, int64_t index) {
  em_val k = em_int(e->i64, (uint64_t)index);
  return LLVMBuildGEP2(e->b, em_memory_type(e, e->kernel->k->buffers[buffer].dtype, 0), base, &k, 1, "");
}

/* The first of the n columns, column `at` among them, that are loaded together; false: too few are asked for. rows[c]: the expression of column *from + c, or 0. */
static bool neighbours(em *e, int64_t buffer, lp_ref rest, int64_t at, int n, int64_t *from, lp_ref *rows) {
  em_kernel *s = e->kernel;
  lp_ref of[2 * MOST + 1] = {0};                     /* by column - at + MOST */
  for (lp_ref r = 1; r < s->k->n_exprs; r++) {
    const lp_expr *x = em_expr(e, r);
    int64_t c;
    if (x->kind == LX_LOAD && x->imm == buffer && !x->a[1] && split(e, x->a[0], &c) == rest && c - at >= -MOST && c - at <= MOST) of[c - at + MOST] = r;
  }
  int first = MOST, end = MOST + 1;
  while (first > 0 && of[first - 1]) first--;
  while (end <= 2 * MOST && of[end]) end++;
  if (end - first < n) return false;
  int group = first + (MOST - first) / n * n;
  if (group + n > end) group = end - n;
  const lp_fact *f = lp_fact_of(s->k, rest);
  *from = at + group - MOST;
  for (int c = 0; c < n; c++) rows[c] = of[group + c];
  return lp_known(f) && f->lo + *from >= 0 && f->hi + *from + n - 1 < s->k->buffers[buffer].count;
}

em_val em_load_column(em *e, lp_ref r, em_val first, int64_t stride, int level) {
  em_kernel *s = e->kernel;
  const lp_expr *x = em_expr(e, r);
  const lp_buffer *f = &s->k->buffers[x->imm];
  int n = columns_for(e, f->dtype), width = s->width, machine = e->cpu->vector_bytes / (int)tt_dtype_size(f->dtype);
  int64_t at, from;
  lp_ref rows[4];
  if (!n || f->written) return NULL;
  lp_ref rest = split(e, x->a[0], &at);
  if (!neighbours(e, x->imm, rest, at, n, &from, rows)) return NULL;
  if (machine > width) machine = width;
  em_val base = em_address(e, x->imm, first), blocks[4][256], result = NULL;
  LLVMTypeRef part = em_memory_type(e, f->dtype, n);
  for (int lane = 0; lane < width; lane += machine) {
    em_val v[4];
    for (int i = 0; i < n; i++) {
      em_val parts[256];
      for (int g = 0; g < machine / n; g++) {
        parts[g] = LLVMBuildLoad2(e->b, part, pointer_at(e, x->imm, base, (lane + g * n + i) * stride + from - at), "");
        LLVMSetAlignment(parts[g], (unsigned)tt_dtype_size(f->dtype));
      }
      v[i] = join(e, parts, machine / n);
    }
    transpose(e, v, n);
    for (int i = 0; i < n; i++) blocks[i][lane / machine] = v[i];
  }
  for (int i = 0; i < n; i++) {
    em_val v = em_from_memory(e, f->dtype, join(e, blocks[i], width / machine));
    if (rows[i] == r) result = v;
    em_keep(e, rows[i], level, v);
  }
  return result;
}

/* The run of stores of neighbouring columns that begins with x, with locals between them; gives the last statement of it, or NULL. */
static const lp_stmt *run_of(em *e, const lp_stmt *x, int n, int *count) {
  int64_t at, c;
  lp_ref rest = split(e, x->index, &at);
  const lp_stmt *last = NULL;
  for (const lp_stmt *s = x; s && *count < MOST; s = s->next) {
    if (e->kernel->needs[s->value].loaded & em_bit(x->buffer)) break;
    if (s->kind == LS_LOCAL) continue;
    if (s->kind != LS_STORE || s->guard || s->buffer != x->buffer || split(e, s->index, &c) != rest || c != at + *count) break;
    last = s;
    ++*count;
  }
  return *count >= n ? last : NULL;
}

const lp_stmt *em_store_columns(em *e, const lp_stmt *x) {
  em_kernel *s = e->kernel;
  int64_t stride;
  if (x->kind != LS_STORE || !s->width || s->mask || s->guard || x->guard || !em_affine(e, x->index, &stride) || stride == 0 || stride == 1) return NULL;
  tt_dtype t = s->k->buffers[x->buffer].dtype;
  int n = columns_for(e, t), count = 0, width = s->width;
  const lp_stmt *last = n ? run_of(e, x, n, &count) : NULL;
  if (!last) return NULL;
  em_val values[MOST], base = em_address(e, x->buffer, em_lane0(e, x->index));
  int at = 0;
  for (const lp_stmt *y = x;; y = y->next) {
    if (y->kind == LS_STORE) values[at++] = em_to_memory(e, t, em_wide(e, y->value));
    else em_statement(e, y);
    if (y == last) break;
  }
  for (int group = 0; group < count; group += n) {
    if (group + n > count) group = count - n;
    em_val v[4];
    for (int i = 0; i < n; i++) v[i] = values[group + i];
    transpose(e, v, n);
    for (int lane = 0; lane < width; lane += n)
      for (int i = 0; i < n; i++) {
        int lanes[4];
        for (int c = 0; c < n; c++) lanes[c] = lane + c;
        em_val part = em_shuffle(e, v[i], NULL, lanes, n);
        LLVMSetAlignment(LLVMBuildStore(e->b, part, pointer_at(e, x->buffer, base, (lane + i) * stride + group)), (unsigned)tt_dtype_size(t));
      }
  }
  em_touch_buffer(e, x->buffer);
  return last;
}
