/* window_sums.c: the weight gradients of convolutions with short sums (window.c): few results, each a sum over all pixels of all images.
 *
 *     task = the images of one part of the sum (passes/split.c)
 *       sums[weight][channel] = 0                               in scratch
 *       for each image, for some of its lines, for each panel of L channels, for the weights that registers hold at once
 *         acc = sums; for each line and pixel: y = dy[pixel], acc[weight] += x[pixel + tap] * y; sums = acc
 *       epilogue, store
 *
 * Seen as the convolution that it is: `outputs` of a spatial axis are the kernel's, its `taps` are the pixels of dy, n->dim[0] the input channels of
 * a group and the summed channels the images. Pixels at the two ends of a line, where some weights see the border, are written out; others are a loop, for a depthwise convolution four at
 * a time, as neighbours share what they load. */
#include "contract.h"

typedef struct {
  lower_ctx *lx;
  lp_kernel *k;
  ir_ref row;
  pass_window see;
  spatial h, w;
  tt_dtype acc_type;
  bool split;
  int64_t groups, extent, inputs, images, lines, lanes, panels, together;      /* input channels whose sums are in registers together */
  int sums;
} window_sums;

typedef struct { lp_ref part, image, line, group, panel, lane, from, input; int64_t n_inputs; } place;      /* lines from `line` on; inputs from `input` on */

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

static lp_ref as_acc(window_sums *w, lp_ref e) { return w->k->exprs[e].dtype == w->acc_type ? e : lp_op(w->k, IR_cast, w->acc_type, e, 0, 0); }
static lp_ref affine(window_sums *w, lp_ref a, int64_t by, lp_ref b, int64_t by_b, int64_t plus) {
  return lp_add(w->k, lp_add(w->k, lp_mul(w->k, a, by), lp_mul(w->k, b, by_b)), lp_int(w->k, plus));
}
static lp_ref column_of(window_sums *w, lp_ref pixel, int64_t tap) { return affine(w, pixel, w->w.tap_step, lp_int(w->k, tap), w->w.step, w->w.x_first - w->see.lo[1]); }
static lp_ref line_of(window_sums *w, lp_ref line, lp_ref tap) { return affine(w, line, w->h.tap_step, tap, w->h.step, w->h.x_first - w->see.lo[0]); }

/* x at a line and column that are inside of it. */
static lp_ref pixel_of(window_sums *w, const place *p, lp_ref line, lp_ref column, int64_t input) {
  lp_kernel *k = w->k;
  lp_ref at_input = lp_add(k, p->input, lp_int(k, input)), lo[2] = {lp_int(k, w->see.lo[0]), lp_int(k, w->see.lo[1])};
  return as_acc(w, lower_pull(w->lx, ir_at(w->lx->g, w->row)->args[0], (lp_ref[]){at_input, w->see.depthwise ? p->from : p->group, p->image, lp_add(k, line, lo[0]), lp_add(k, column, lo[1])}));
}
static lp_ref gradient_of(window_sums *w, const place *p, lp_ref line, lp_ref pixel) {
  lp_ref zero = lp_int(w->k, 0);
  return as_acc(w, lower_pull(w->lx, ir_at(w->lx->g, w->row)->args[1], (lp_ref[]){w->see.depthwise ? p->from : p->group, w->see.depthwise ? zero : p->from, p->image, line, pixel}));
}

static lp_ref sum_index(window_sums *w, const place *p, int64_t input, lp_ref tap_h, int64_t tap_w) {
  lp_kernel *k = w->k;
  lp_ref e = lp_add(k, lp_mul(k, p->group, w->inputs), lp_add(k, p->input, lp_int(k, input)));
  e = lp_add(k, lp_mul(k, e, w->h.outputs), tap_h);
  e = lp_add(k, lp_mul(k, e, w->w.outputs), lp_int(k, tap_w));
  e = lp_add(k, lp_mul(k, e, w->panels), p->panel);
  return lp_add(k, lp_mul(k, e, w->lanes), p->lane);
}

/* One pixel of dy: every weight of rows first..end-1 of the kernel that sees the image there. seen: each row's line of x. */
static void add_pixel(window_sums *w, lp_cursor *at, const place *p, lp_ref line, lp_ref pixel, int acc, int64_t first, int64_t end, const lp_ref *seen) {
  lp_kernel *k = w->k;
  lp_ref y = gradient_of(w, p, line, pixel);
  for (int64_t h = first; h < end; h++)
    for (int64_t c = 0; c < p->n_inputs; c++)
      for (int64_t tap = 0; tap < w->w.outputs; tap++) {
        lp_ref column = column_of(w, pixel, tap);
        lp_ref sees = lp_op(k, IR_and, TT_BOOL, lp_op(k, IR_ge, TT_BOOL, column, lp_int(k, 0), 0), lp_op(k, IR_lt, TT_BOOL, column, lp_int(k, w->see.size[1]), 0), 0);
        if (k->exprs[sees].kind != LX_CONST || !k->exprs[sees].imm) continue;
        lp_stmt *s = lp_append(k, at, LS_SET);
        s->local = acc, s->index = lp_int(k, (h * p->n_inputs + c) * w->w.outputs + tap);
        lp_ref old = lp_get(k, acc, s->index), x = pixel_of(w, p, seen[h], column, c);
        if (tt_dtype_in(w->acc_type, TT_REAL)) s->value = lp_fma(k, x, y, old);
        else s->value = lp_op(k, IR_add, w->acc_type, lp_op(k, IR_mul, w->acc_type, x, y, 0), old, 0);
      }
}

/* All pixels of a line. */
static void add_line(window_sums *w, lp_cursor *at, const place *p, lp_ref line, int acc, int64_t first, int64_t end, const lp_ref *seen) {
  lp_kernel *k = w->k;
  int64_t back = w->see.lo[1] - w->w.x_first, low = back > 0 ? (back + w->w.tap_step - 1) / w->w.tap_step : 0, last = w->see.size[1] - 1 + back - (w->w.outputs - 1) * w->w.step;
  int64_t high = last < 0 ? 0 : last / w->w.tap_step + 1;
  if (high > w->w.taps) high = w->w.taps;
  if (low > high) low = high;
  for (int64_t i = 0; i < low; i++) add_pixel(w, at, p, line, lp_int(k, i), acc, first, end, seen);
  lp_cursor body = *at;
  int64_t at_once = w->see.depthwise ? 4 : 1, steps = (high - low) / at_once;
  if (steps) {
    lp_ref step = open(w, &body, "x", steps);
    for (int64_t i = 0; i < at_once; i++) add_pixel(w, &body, p, line, lp_add(k, lp_mul(k, step, at_once), lp_int(k, low + i)), acc, first, end, seen);
    to_end(at);
  }
  for (int64_t i = low + steps * at_once; i < w->w.taps; i++) add_pixel(w, at, p, line, lp_int(k, i), acc, first, end, seen);
}

static lp_ref sees_line(window_sums *w, lp_ref e, lp_ref *inside) {
  lp_kernel *k = w->k;
  *inside = lp_op(k, IR_max, TT_I64, lp_op(k, IR_min, TT_I64, e, lp_int(k, w->see.size[0] - 1), 0), lp_int(k, 0), 0);      /* itself, with its range known */
  return lp_op(k, IR_and, TT_BOOL, lp_op(k, IR_ge, TT_BOOL, e, lp_int(k, 0), 0), lp_op(k, IR_lt, TT_BOOL, e, lp_int(k, w->see.size[0]), 0), 0);
}

/* A depthwise line of the next block, asked for a block early: every panel takes an equal part, in the order in which it lies. x: an element of the line at
 * pixel 0, next: the same at pixel 1. */
static void ask_for(window_sums *w, lp_cursor *at, const place *p, lp_ref x, lp_ref next, int64_t pixels) {
  lp_kernel *k = w->k;
  int64_t apart, line = 64 / (int64_t)tt_dtype_size((tt_dtype)k->exprs[x].dtype);
  if (k->exprs[x].kind != LX_LOAD || k->exprs[next].kind != LX_LOAD || !lp_is_int(k, lp_op(k, IR_sub, TT_I64, k->exprs[next].a[0], k->exprs[x].a[0], 0), &apart) || apart != w->extent) return;
  lp_cursor body = *at;
  lp_ref j = open(w, &body, "j", (pixels * w->lanes + line - 1) / line);
  lp_stmt *s = lp_append(k, &body, LS_PREFETCH);
  s->buffer = (int)k->exprs[x].imm, s->index = lp_add(k, k->exprs[x].a[0], lp_add(k, lp_mul(k, p->panel, w->lanes * (pixels - 1)), lp_mul(k, j, line)));
  to_end(at);
}

static void ask_ahead(window_sums *w, lp_cursor *at, const place *p, lp_ref line) {
  lp_kernel *k = w->k;
  lp_ref then = lp_add(k, line, lp_int(k, w->lines)), zero = lp_int(k, 0), one = lp_int(k, 1);
  ask_for(w, at, p, gradient_of(w, p, then, zero), gradient_of(w, p, then, one), w->w.taps);
  for (int64_t i = 0; i < w->h.tap_step; i++) {
    lp_ref x_line = lp_add(k, line_of(w, then, lp_int(k, w->h.outputs - 1)), lp_int(k, i + 1 - w->h.tap_step));
    ask_for(w, at, p, pixel_of(w, p, x_line, zero, 0), pixel_of(w, p, x_line, one, 0), w->see.size[1]);
  }
}

static lp_cursor when(window_sums *w, lp_cursor *at, lp_ref guard) {
  lp_stmt *s = lp_append(w->k, at, LS_IF);
  s->guard = guard;
  return (lp_cursor){&s->body};
}

/* The sums of a panel for rows tap.. of the kernel (all of them, or the one that is given) over the block's lines. */
static void add_lines(window_sums *w, lp_cursor *at, place p, int64_t width, lp_ref one_tap) {
  lp_kernel *k = w->k;
  int64_t rows = one_tap ? 1 : w->h.outputs, per_row = p.n_inputs * w->w.outputs;
  int var = lp_var_add(k, "l", width), acc = lp_local_add(k, "acc", w->acc_type, (int)(rows * per_row));
  lp_cursor body, loop;
  lp_for(k, at, var, 0, width, (int)w->lanes, &body);
  p.lane = lp_var(k, var), p.from = lp_add(k, lp_mul(k, p.panel, w->lanes), p.lane);
  lp_stmt *s = lp_append(k, &body, LS_LOCAL);
  s->local = acc, s->value = lp_const(k, w->acc_type, 0);
  for (int store = 0; store < 2; store++) {
    for (int64_t i = 0; i < rows * per_row; i++) {
      lp_ref index = sum_index(w, &p, i % per_row / w->w.outputs, one_tap ? one_tap : lp_int(k, i / per_row), i % w->w.outputs);
      s = lp_append(k, &body, store ? LS_STORE : LS_SET);
      if (store) s->buffer = w->sums, s->index = index, s->value = lp_get(k, acc, lp_int(k, i));
      else s->local = acc, s->index = lp_int(k, i), s->value = lp_load(k, w->sums, index, 0, 0);
    }
    if (store) break;
    loop = body;
    lp_ref line = lp_add(k, p.line, open(w, &loop, "y", w->lines)), seen[16], all = lp_const(k, TT_BOOL, 1), guard[16];
    for (int64_t h = 0; h < rows; h++) {
      guard[h] = sees_line(w, line_of(w, line, one_tap ? one_tap : lp_int(k, h)), &seen[h]);
      all = lp_op(k, IR_and, TT_BOOL, all, guard[h], 0);
    }
    if (w->see.depthwise) ask_ahead(w, &loop, &p, line);
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
  }
  to_end(at);
}

static void add_panel(window_sums *w, lp_cursor *at, place p, int64_t width) {
  lp_kernel *k = w->k;
  if (w->see.depthwise && w->h.outputs * w->w.outputs <= w->together) {
    p.input = lp_int(k, 0), p.n_inputs = 1;
    add_lines(w, at, p, width, 0);
    return;
  }
  int64_t some = w->see.depthwise || w->together < w->w.outputs ? 1 : w->together / w->w.outputs, blocks;
  if (some > w->inputs) some = w->inputs;
  blocks = w->inputs / some;
  for (int part = 0; part < 2; part++) {
    int64_t rest = w->inputs % some;
    if (part && !rest) continue;
    lp_cursor body = *at;
    p.input = part ? lp_int(k, blocks * some) : lp_mul(k, open(w, &body, "c", blocks), some), p.n_inputs = part ? rest : some;
    int var = lp_var_add(k, "h", w->h.outputs);
    lp_for(k, &body, var, 0, w->h.outputs, 0, &body);
    add_lines(w, &body, p, width, lp_var(k, var));
    to_end(at);
  }
}

static void each_panel(window_sums *w, lp_cursor *at, place p, void (*fn)(window_sums *, lp_cursor *, place, int64_t)) {
  int64_t full = w->extent / w->lanes, rest = w->extent % w->lanes;
  lp_cursor each = *at, body;
  p.group = open(w, &each, "g", w->groups);
  body = each;
  if (full) {
    p.panel = open(w, &body, "p", full);
    fn(w, &body, p, w->lanes);
    to_end(&each);
  }
  if (rest) {
    p.panel = lp_int(w->k, full);
    fn(w, &each, p, rest);
  }
  to_end(at);
}

static void store_panel(window_sums *w, lp_cursor *at, place p, int64_t width) {
  lp_kernel *k = w->k;
  lp_cursor body = *at;
  p.input = open(w, &body, "c", w->inputs);
  lp_ref h = open(w, &body, "h", w->h.outputs), zero = lp_int(k, 0);
  for (int64_t tap = 0; tap < w->w.outputs; tap++) {
    lp_cursor lanes, here = body;
    int var = lp_var_add(k, "l", width);
    lp_for(k, &here, var, 0, width, (int)w->lanes, &lanes);
    p.lane = lp_var(k, var), p.from = lp_add(k, lp_mul(k, p.panel, w->lanes), p.lane);
    lp_ref index[TT_MAX_RANK] = {p.part, p.input, w->see.depthwise ? p.from : p.group, w->see.depthwise ? zero : p.from, h, lp_int(k, tap)};
    con_store(w->lx, w->row, &lanes, index + !w->split, lp_load(k, w->sums, sum_index(w, &p, 0, h, tap), 0, 0));
    to_end(&body);
  }
  to_end(at);
}

void con_window_sums(lower_ctx *lx, ir_ref row, const contraction *c, const pass_window *see) {
  const ir_node *n = ir_at(lx->g, row), *x = ir_at(lx->g, n->args[0]), *y = ir_at(lx->g, n->args[1]);
  lp_kernel *k = lx->k;
  int64_t parts = ir_int(n, "split") > 1 ? ir_int(n, "split") : 1, size = (int64_t)tt_dtype_size(c->acc_type), machine = lx->cpu->vector_bytes / size;
  window_sums w = {.lx = lx, .k = k, .row = row, .see = *see, .h = c->space[0], .w = c->space[1], .acc_type = c->acc_type, .split = parts > 1, .inputs = x->dim[0], .images = y->dim[2] / parts};
  w.groups = see->depthwise ? 1 : y->dim[0], w.extent = see->depthwise ? y->dim[0] : y->dim[1];
  if (machine < 2) machine = 2;
  /* Scalars of x serve two vectors each where there are as many. */
  int64_t vectors = !see->depthwise && w.extent > machine && 2 * w.w.outputs <= lx->cpu->n_registers - 4 ? 2 : 1;
  w.lanes = vectors * machine, w.panels = (w.extent + w.lanes - 1) / w.lanes;
  w.together = (lx->cpu->n_registers - 1 - vectors) / vectors;
  /* What all panels read again stays in L2. */
  int64_t line = (w.w.taps * w.groups * w.extent + see->size[1] * (see->depthwise ? w.extent : w.groups * w.inputs)) * size;
  w.lines = con_nearest_divisor(w.h.taps, lx->cpu->l2 / 8 / (line ? line : 1));
  if (w.lines * line > lx->cpu->l2 / 4) w.lines = 1;
  int64_t count = w.groups * w.inputs * w.h.outputs * w.w.outputs * w.panels * w.lanes;
  w.sums = lp_buffer_add(k, "sums", w.acc_type, count, true, true);
  k->tasks = parts;
  lp_cursor body = {&k->body}, loop = body;
  int zero = lp_var_add(k, "z", count);
  lp_for(k, &body, zero, 0, count, (int)machine, &loop);
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
