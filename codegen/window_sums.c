/* window_sums.c: the weight gradient of a depthwise convolution: few results, each a sum over all pixels of all images.
 *
 *     task = the images of one part of the sum (passes/split.c)
 *       sums[weight][channel] = 0                               in scratch
 *       for each image, for some of its lines, for each panel of L channels
 *         acc = sums; for each line and pixel: y = dy[pixel], acc[weight] += x[pixel + tap] * y; sums = acc
 *       epilogue, store
 *
 * Seen as the convolution that it is: `outputs` of a spatial axis are the kernel's, its `taps` are the pixels of dy, and the images are summed channels.
 * Pixels at the two ends of a line, where some weights see the border, are written out; others are a loop, some at a time, because neighbours
 * share what they load. A kernel of more weights than registers is done row by row, and so are lines of which a row of weights sees the border. */
#include "contract.h"

enum { AT_ONCE = 4 };           /* pixels of a step of that loop */

typedef struct {
  lower_ctx *lx;
  lp_kernel *k;
  ir_ref row;
  pass_window see;
  spatial h, w;
  tt_dtype acc_type;
  int64_t channels, images, lines, lanes, panels;      /* images: of a part; lines: of a block */
  bool split;
  int sums;
} window_sums;

typedef struct { lp_ref part, image, line, panel, lane, channel; } place;

static void to_end(lp_cursor *at) {
  while (*at->tail) at->tail = &(*at->tail)->next;
}

static lp_ref open(window_sums *w, lp_cursor *at, const char *name, int64_t extent) {
  if (extent == 1) return lp_int(w->k, 0);
  int var = lp_var_add(w->k, name, extent);
  lp_cursor inside;
  lp_for(w->k, at, var, 0, extent, 0, &inside);
  *at = inside;
  return lp_var(w->k, var);
}

/* The lanes of a panel of p, `width` of which exist. */
static lp_cursor open_lanes(window_sums *w, lp_cursor *at, place *p, int64_t width) {
  int var = lp_var_add(w->k, "l", width);
  lp_cursor inside;
  lp_for(w->k, at, var, 0, width, (int)w->lanes, &inside);
  p->lane = lp_var(w->k, var), p->channel = lp_add(w->k, lp_mul(w->k, p->panel, w->lanes), p->lane);
  return inside;
}

static lp_cursor when(window_sums *w, lp_cursor *at, lp_ref guard) {
  lp_stmt *s = lp_append(w->k, at, LS_IF);
  s->guard = guard;
  return (lp_cursor){&s->body};
}

/* Where weight `tap` meets x, at pixel `at` of dy; side 0: lines, 1: columns. */
static lp_ref meets(window_sums *w, int side, lp_ref at, lp_ref tap) {
  const spatial *s = side ? &w->w : &w->h;
  return lp_add(w->k, lp_add(w->k, lp_mul(w->k, at, s->tap_step), lp_mul(w->k, tap, s->step)), lp_int(w->k, s->x_first - w->see.lo[side]));
}
static lp_ref is_inside(window_sums *w, int side, lp_ref e) {
  return lp_op(w->k, IR_and, TT_BOOL, lp_op(w->k, IR_ge, TT_BOOL, e, lp_int(w->k, 0), 0), lp_op(w->k, IR_lt, TT_BOOL, e, lp_int(w->k, w->see.size[side]), 0), 0);
}

static lp_ref as_acc(window_sums *w, lp_ref e) { return w->k->exprs[e].dtype == w->acc_type ? e : lp_op(w->k, IR_cast, w->acc_type, e, 0, 0); }
static lp_ref x_at(window_sums *w, const place *p, lp_ref line, lp_ref column) {
  line = lp_add(w->k, line, lp_int(w->k, w->see.lo[0])), column = lp_add(w->k, column, lp_int(w->k, w->see.lo[1]));
  return lower_pull(w->lx, ir_at(w->lx->g, w->row)->args[0], (lp_ref[]){lp_int(w->k, 0), p->channel, p->image, line, column});
}
static lp_ref dy_at(window_sums *w, const place *p, lp_ref line, lp_ref column) {
  return lower_pull(w->lx, ir_at(w->lx->g, w->row)->args[1], (lp_ref[]){p->channel, lp_int(w->k, 0), p->image, line, column});
}

static lp_ref sum_index(window_sums *w, const place *p, lp_ref tap_h, lp_ref tap_w) {
  lp_kernel *k = w->k;
  lp_ref e = lp_add(k, lp_mul(k, tap_h, w->w.outputs), tap_w);
  return lp_add(k, lp_mul(k, lp_add(k, lp_mul(k, e, w->panels), p->panel), w->lanes), p->lane);
}

/* n pixels of dy from number `pixel` on: every weight of rows first..end-1 of the kernel that sees the image there. seen: each row's line of x. */
static void add_pixels(window_sums *w, lp_cursor *at, const place *p, lp_ref line, lp_ref pixel, int64_t n, int acc, int64_t first, int64_t end, const lp_ref *seen) {
  lp_kernel *k = w->k;
  for (int64_t h = first; h < end; h++)
    for (int64_t i = 0; i < n; i++)
      for (int64_t tap = 0; tap < w->w.outputs; tap++) {
        lp_ref here = lp_add(k, pixel, lp_int(k, i)), column = meets(w, 1, here, lp_int(k, tap)), sees = is_inside(w, 1, column);
        if (k->exprs[sees].kind != LX_CONST || !k->exprs[sees].imm) continue;
        lp_ref index = lp_int(k, h * w->w.outputs + tap), old = lp_get(k, acc, index), x = as_acc(w, x_at(w, p, seen[h], column)), y = as_acc(w, dy_at(w, p, line, here));
        lp_stmt *s = lp_append(k, at, LS_SET);
        s->local = acc, s->index = index;
        if (tt_dtype_in(w->acc_type, TT_REAL)) s->value = lp_fma(k, x, y, old);
        else s->value = lp_op(k, IR_add, w->acc_type, lp_op(k, IR_mul, w->acc_type, x, y, 0), old, 0);
      }
}

/* All pixels of a line: low..high-1 are those where no weight sees the border. */
static void add_line(window_sums *w, lp_cursor *at, const place *p, lp_ref line, int acc, int64_t first, int64_t end, const lp_ref *seen) {
  lp_kernel *k = w->k;
  int64_t back = w->see.lo[1] - w->w.x_first, low = back > 0 ? (back + w->w.tap_step - 1) / w->w.tap_step : 0, last = w->see.size[1] - 1 + back - (w->w.outputs - 1) * w->w.step;
  int64_t high = last < 0 ? 0 : last / w->w.tap_step + 1;
  if (high > w->w.taps) high = w->w.taps;
  if (low > high) low = high;
  if (low) add_pixels(w, at, p, line, lp_int(k, 0), low, acc, first, end, seen);
  int64_t steps = (high - low) / AT_ONCE, done = low + steps * AT_ONCE;
  if (steps) {
    lp_cursor body = *at;
    lp_ref step = open(w, &body, "x", steps);
    add_pixels(w, &body, p, line, lp_add(k, lp_mul(k, step, AT_ONCE), lp_int(k, low)), AT_ONCE, acc, first, end, seen);
    to_end(at);
  }
  if (done < w->w.taps) add_pixels(w, at, p, line, lp_int(k, done), w->w.taps - done, acc, first, end, seen);
}

/* A line of the next block, asked for a block early: every panel takes an equal part, in the order in which it lies. x, next: of the line's first two pixels. */
static void ask_for(window_sums *w, lp_cursor *at, const place *p, lp_ref x, lp_ref next, int64_t pixels) {
  lp_kernel *k = w->k;
  if (k->exprs[x].kind != LX_LOAD || k->exprs[next].kind != LX_LOAD) return;
  int64_t apart, line = 64 / (int64_t)tt_dtype_size((tt_dtype)k->exprs[x].dtype);
  if (!lp_is_int(k, lp_op(k, IR_sub, TT_I64, k->exprs[next].a[0], k->exprs[x].a[0], 0), &apart) || apart != w->channels) return;
  lp_cursor body = *at;
  lp_ref j = open(w, &body, "j", (pixels * w->lanes + line - 1) / line);
  lp_stmt *s = lp_append(k, &body, LS_PREFETCH);
  s->buffer = (int)k->exprs[x].imm, s->index = lp_add(k, k->exprs[x].a[0], lp_add(k, lp_mul(k, p->panel, w->lanes * (pixels - 1)), lp_mul(k, j, line)));
  to_end(at);
}

static void ask_ahead(window_sums *w, lp_cursor *at, const place *p, lp_ref line) {
  lp_kernel *k = w->k;
  lp_ref then = lp_add(k, line, lp_int(k, w->lines)), zero = lp_int(k, 0), one = lp_int(k, 1);
  ask_for(w, at, p, dy_at(w, p, then, zero), dy_at(w, p, then, one), w->w.taps);
  for (int64_t i = 0; i < w->h.tap_step; i++) {
    lp_ref x_line = lp_add(k, meets(w, 0, then, lp_int(k, w->h.outputs - 1)), lp_int(k, i + 1 - w->h.tap_step));
    ask_for(w, at, p, x_at(w, p, x_line, zero), x_at(w, p, x_line, one), w->see.size[1]);
  }
}

/* A panel's sums over the block's lines: of all rows of the kernel, or of the one that is given. */
static void add_lines(window_sums *w, lp_cursor *at, place p, int64_t width, lp_ref one) {
  enum { MOST_ROWS = 16 };             /* as is_sums of passes/window.c has it */
  lp_kernel *k = w->k;
  int64_t rows = one ? 1 : w->h.outputs, per_row = w->w.outputs;
  int acc = lp_local_add(k, "acc", w->acc_type, (int)(rows * per_row));
  lp_cursor body = open_lanes(w, at, &p, width), loop;
  lp_stmt *s = lp_append(k, &body, LS_LOCAL);
  s->local = acc, s->value = lp_const(k, w->acc_type, 0);
  for (int64_t i = 0; i < rows * per_row; i++) {
    s = lp_append(k, &body, LS_SET);
    s->local = acc, s->index = lp_int(k, i), s->value = lp_load(k, w->sums, sum_index(w, &p, one ? one : lp_int(k, i / per_row), lp_int(k, i % per_row)), 0, 0);
  }
  loop = body;
  lp_ref line = lp_add(k, p.line, open(w, &loop, "y", w->lines)), seen[MOST_ROWS], guard[MOST_ROWS], all = lp_const(k, TT_BOOL, 1);
  for (int64_t h = 0; h < rows; h++) {
    lp_ref e = meets(w, 0, line, one ? one : lp_int(k, h));
    seen[h] = lp_op(k, IR_max, TT_I64, lp_op(k, IR_min, TT_I64, e, lp_int(k, w->see.size[0] - 1), 0), lp_int(k, 0), 0);       /* itself, with its range known */
    guard[h] = is_inside(w, 0, e), all = lp_op(k, IR_and, TT_BOOL, all, guard[h], 0);
  }
  ask_ahead(w, &loop, &p, line);
  lp_cursor inside = when(w, &loop, all);
  add_line(w, &inside, &p, line, acc, 0, rows, seen);
  if (rows > 1) {
    lp_cursor others = when(w, &loop, lp_op(k, IR_not, TT_BOOL, all, 0, 0));
    for (int64_t h = 0; h < rows; h++) {
      inside = when(w, &others, guard[h]);
      add_line(w, &inside, &p, line, acc, h, h + 1, seen);
    }
  }
  to_end(&body);
  for (int64_t i = 0; i < rows * per_row; i++) {
    s = lp_append(k, &body, LS_STORE);
    s->buffer = w->sums, s->index = sum_index(w, &p, one ? one : lp_int(k, i / per_row), lp_int(k, i % per_row)), s->value = lp_get(k, acc, lp_int(k, i));
  }
  to_end(at);
}

static void add_panel(window_sums *w, lp_cursor *at, place p, int64_t width) {
  if (w->h.outputs * w->w.outputs <= w->lx->cpu->n_registers - 3) {
    add_lines(w, at, p, width, 0);
    return;
  }
  lp_cursor body = *at;
  int var = lp_var_add(w->k, "h", w->h.outputs);
  lp_for(w->k, &body, var, 0, w->h.outputs, 0, &body);
  add_lines(w, &body, p, width, lp_var(w->k, var));
  to_end(at);
}

static void store_panel(window_sums *w, lp_cursor *at, place p, int64_t width) {
  lp_kernel *k = w->k;
  lp_cursor body = *at;
  lp_ref h = open(w, &body, "h", w->h.outputs), v = open(w, &body, "w", w->w.outputs), zero = lp_int(k, 0);
  lp_cursor lanes = open_lanes(w, &body, &p, width);
  lp_ref index[TT_MAX_RANK] = {p.part, zero, p.channel, zero, h, v};
  con_store(w->lx, w->row, &lanes, index + !w->split, lp_load(k, w->sums, sum_index(w, &p, h, v), 0, 0));
  to_end(at);
}

typedef void panel_fn(window_sums *w, lp_cursor *at, place p, int64_t width);
static void each_panel(window_sums *w, lp_cursor *at, place p, panel_fn *fn) {
  int64_t full = w->channels / w->lanes, rest = w->channels % w->lanes;
  lp_cursor body = *at;
  if (full) {
    p.panel = open(w, &body, "p", full);
    fn(w, &body, p, w->lanes);
    to_end(at);
  }
  p.panel = lp_int(w->k, full);
  if (rest) fn(w, at, p, rest);
  to_end(at);
}

void con_window_sums(lower_ctx *lx, ir_ref row, const contraction *c, const pass_window *see) {
  const ir_node *n = ir_at(lx->g, row), *y = ir_at(lx->g, n->args[1]);
  lp_kernel *k = lx->k;
  int64_t parts = ir_int(n, "split") > 1 ? ir_int(n, "split") : 1, size = (int64_t)tt_dtype_size(c->acc_type), lanes = lx->cpu->vector_bytes / size;
  window_sums w = {.lx = lx, .k = k, .row = row, .see = *see, .h = c->space[0], .w = c->space[1], .acc_type = c->acc_type, .channels = y->dim[0], .images = y->dim[2] / parts, .split = parts > 1};
  w.lanes = lanes < 2 ? 2 : lanes, w.panels = (w.channels + w.lanes - 1) / w.lanes;
  int64_t line = (w.w.taps + see->size[1]) * w.channels * size, count = w.h.outputs * w.w.outputs * w.panels * w.lanes;
  w.lines = con_nearest_divisor(w.h.taps, lx->cpu->l2 / 8 / line);             /* what all panels read again stays in L2 */
  if (w.lines * line > lx->cpu->l2 / 4) w.lines = 1;
  w.sums = lp_buffer_add(k, "sums", w.acc_type, count, true, true);
  k->tasks = parts;
  lp_cursor body = {&k->body}, loop;
  int zero = lp_var_add(k, "z", count);
  lp_for(k, &body, zero, 0, count, (int)w.lanes, &loop);
  lp_stmt *s = lp_append(k, &loop, LS_STORE);
  s->buffer = w.sums, s->index = lp_var(k, zero), s->value = lp_const(k, w.acc_type, 0);
  to_end(&body);
  place p = {.part = lp_var(k, 0)};
  loop = body;
  p.image = lp_add(k, lp_mul(k, p.part, w.images), open(&w, &loop, "n", w.images));
  p.line = lp_mul(k, open(&w, &loop, "b", w.h.taps / w.lines), w.lines);
  each_panel(&w, &loop, p, add_panel);
  to_end(&body);
  each_panel(&w, &body, p, store_panel);
}
