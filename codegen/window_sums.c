/* window_sums.c: the weight gradient of a depthwise convolution: few results, each a sum over all pixels of all images.
 *
 *     task = the images of one part of the sum (passes/split.c)
 *       sums[weight][channel] = 0                               in scratch
 *       for each image, for each line of dy, for each tile of its pixels, for each panel of L channels
 *         acc = sums; for each pixel: y = dy[pixel], acc[weight] += x[pixel + tap] * y; sums = acc
 *       epilogue, store
 *
 * So both operands are read in the order in which they lie, and a tile's pixels share what they load; the sums stay in L1, and channels of more than fit
 * there are done in blocks. Seen as the convolution that it is: `outputs` of a spatial axis are the kernel's, its `taps` are the pixels of dy, and the images are
 * summed channels. Tiles at the two ends of a line, where some weights see the border, are written out; others are a loop. A kernel of more weights than
 * registers is done row by row, and so are lines of which a row of weights sees the border. */
#include "contract.h"

enum { AT_ONCE = 8 };           /* pixels of a tile */

typedef struct {
  lower_ctx *lx;
  lp_kernel *k;
  ir_ref row;
  pass_window see;
  spatial h, w;
  tt_dtype acc_type;
  int64_t channels, images, lanes, panels;      /* images: of a part */
  bool split, ahead;            /* ahead: tiles have all channels, so what the next line reads is asked for early */
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

/* n pixels of dy from number `pixel` on: every weight of `rows` rows of the kernel that sees the image there. seen: the line of x of each.
 * Column by column, so that one load of x serves all weights that meet it. */
static void add_pixels(window_sums *w, lp_cursor *at, const place *p, lp_ref line, lp_ref pixel, int64_t n, int acc, int64_t rows, const lp_ref *seen) {
  lp_kernel *k = w->k;
  int64_t last = (n - 1) * w->w.tap_step + (w->w.outputs - 1) * w->w.step;
  for (int64_t h = 0; h < rows; h++)
    for (int64_t offset = 0; offset <= last; offset++)
      for (int64_t tap = w->w.outputs - 1; tap >= 0; tap--) {
        int64_t by = offset - tap * w->w.step;
        if (by < 0 || by % w->w.tap_step || by / w->w.tap_step >= n) continue;
        lp_ref here = lp_add(k, pixel, lp_int(k, by / w->w.tap_step)), column = meets(w, 1, here, lp_int(k, tap)), sees = is_inside(w, 1, column);
        if (k->exprs[sees].kind != LX_CONST || !k->exprs[sees].imm) continue;
        lp_ref index = lp_int(k, h * w->w.outputs + tap), old = lp_get(k, acc, index), x = as_acc(w, x_at(w, p, seen[h], column)), y = as_acc(w, dy_at(w, p, line, here));
        lp_stmt *s = lp_append(k, at, LS_SET);
        s->local = acc, s->index = index;
        if (tt_dtype_in(w->acc_type, TT_REAL)) s->value = lp_fma(k, x, y, old);
        else s->value = lp_op(k, IR_add, w->acc_type, lp_op(k, IR_mul, w->acc_type, x, y, 0), old, 0);
      }
}

/* Pixels of a line that will be read later: every panel asks for an equal part, in the order in which it lies. x, next: of the first two, channel 0. */
static void ask_for(window_sums *w, lp_cursor *at, const place *p, lp_ref x, lp_ref next, int64_t pixels) {
  lp_kernel *k = w->k;
  if (k->exprs[x].kind != LX_LOAD || k->exprs[next].kind != LX_LOAD) return;
  int64_t apart, line = 64 / (int64_t)tt_dtype_size((tt_dtype)k->exprs[x].dtype);
  if (!lp_is_int(k, lp_op(k, IR_sub, TT_I64, k->exprs[next].a[0], k->exprs[x].a[0], 0), &apart) || apart != w->channels) return;
  for (int64_t i = 0; i < pixels * w->lanes; i += line) {
    lp_stmt *s = lp_append(k, at, LS_PREFETCH);
    s->buffer = (int)k->exprs[x].imm, s->index = lp_add(k, k->exprs[x].a[0], lp_add(k, lp_mul(k, p->panel, pixels * w->lanes), lp_int(k, i)));
  }
}

/* What the next line will be the first to read of these pixels. */
static void ask_ahead(window_sums *w, lp_cursor *at, place here, lp_ref pixel, int64_t n) {
  lp_kernel *k = w->k;
  const place *p = &here;
  here.lane = here.channel = lp_int(k, 0);
  lp_ref then = lp_add(k, p->line, lp_int(k, 1)), one = lp_int(k, 1), column = meets(w, 1, pixel, lp_int(k, w->w.outputs - 1));
  ask_for(w, at, p, dy_at(w, p, then, pixel), dy_at(w, p, then, lp_add(k, pixel, one)), n);
  for (int64_t i = 0; i < w->h.tap_step; i++) {
    lp_ref x_line = lp_add(k, meets(w, 0, then, lp_int(k, w->h.outputs - 1)), lp_int(k, i + 1 - w->h.tap_step));
    ask_for(w, at, p, x_at(w, p, x_line, column), x_at(w, p, x_line, lp_add(k, column, one)), n * w->w.tap_step);
  }
}

/* A panel's sums over n pixels: of all rows of the kernel, or of number `one`. */
static void add_tile(window_sums *w, lp_cursor *at, place p, lp_ref pixel, int64_t n, int64_t width, lp_ref one, const lp_ref *seen) {
  lp_kernel *k = w->k;
  int64_t per_row = w->w.outputs, rows = one ? 1 : w->h.outputs;
  int acc = lp_local_add(k, "acc", w->acc_type, (int)(rows * per_row));
  if (!one && w->ahead) ask_ahead(w, at, p, pixel, n);
  to_end(at);
  lp_cursor body = open_lanes(w, at, &p, width);
  lp_stmt *s = lp_append(k, &body, LS_LOCAL);
  s->local = acc, s->value = lp_const(k, w->acc_type, 0);
  for (int64_t i = 0; i < rows * per_row; i++) {
    s = lp_append(k, &body, LS_SET);
    s->local = acc, s->index = lp_int(k, i), s->value = lp_load(k, w->sums, sum_index(w, &p, one ? one : lp_int(k, i / per_row), lp_int(k, i % per_row)), 0, 0);
  }
  add_pixels(w, &body, &p, p.line, pixel, n, acc, rows, seen);
  for (int64_t i = 0; i < rows * per_row; i++) {
    s = lp_append(k, &body, LS_STORE);
    s->buffer = w->sums, s->index = sum_index(w, &p, one ? one : lp_int(k, i / per_row), lp_int(k, i % per_row)), s->value = lp_get(k, acc, lp_int(k, i));
  }
  to_end(at);
}

/* Does a weight see the border at one of these pixels? */
static bool at_border(const window_sums *w, int64_t first, int64_t n) {
  int64_t from = first * w->w.tap_step + w->w.x_first - w->see.lo[1], last = from + (n - 1) * w->w.tap_step + (w->w.outputs - 1) * w->w.step;
  return from < 0 || last >= w->see.size[1];
}

/* A line's pixels in balanced tiles; those that see no border are one loop. `full` panels from p.panel on, and one of `rest` lanes. */
static void add_line(window_sums *w, lp_cursor *at, place p, int64_t full, int64_t rest, lp_ref one, const lp_ref *seen) {
  lp_kernel *k = w->k;
  int64_t pixels = w->w.taps, tiles = (pixels + AT_ONCE - 1) / AT_ONCE, most = (pixels + tiles - 1) / tiles, high = tiles - (tiles * most - pixels);
  for (int64_t i = 0, first = 0; i < tiles;) {
    int64_t size = i < high ? most : most - 1, end = i + 1, next = first + size;
    bool border = at_border(w, first, size);
    for (; !border && end < (i < high ? high : tiles) && !at_border(w, next, size); end++) next += size;
    lp_cursor body = *at;
    lp_ref pixel = lp_add(k, lp_mul(k, open(w, &body, "x", end - i), size), lp_int(k, first));
    place here = p;
    if (full) {
      lp_cursor inside = body;
      here.panel = lp_add(k, p.panel, open(w, &inside, "p", full));
      add_tile(w, &inside, here, pixel, size, w->lanes, one, seen);
      to_end(&body);
    }
    here.panel = lp_add(k, p.panel, lp_int(k, full));
    if (rest) add_tile(w, &body, here, pixel, size, rest, one, seen);
    to_end(at);
    i = end, first = next;
  }
}

/* Row by row of the kernel: those that see the image. */
static void add_rows(window_sums *w, lp_cursor *at, place p, int64_t full, int64_t rest) {
  lp_kernel *k = w->k;
  int var = lp_var_add(k, "h", w->h.outputs);
  lp_cursor body;
  lp_for(k, at, var, 0, w->h.outputs, 0, &body);
  lp_ref e = meets(w, 0, p.line, lp_var(k, var)), seen = lp_op(k, IR_max, TT_I64, lp_op(k, IR_min, TT_I64, e, lp_int(k, w->see.size[0] - 1), 0), lp_int(k, 0), 0);
  lp_cursor inside = when(w, &body, is_inside(w, 0, e));
  add_line(w, &inside, p, full, rest, lp_var(k, var), &seen);
  to_end(at);
}

/* All lines of an image, for some panels. */
static void add_lines(window_sums *w, lp_cursor *at, place p, int64_t full, int64_t rest) {
  enum { MOST_ROWS = 16 };             /* as is_sums of passes/window.c has it */
  lp_kernel *k = w->k;
  lp_cursor loop = *at;
  p.line = open(w, &loop, "y", w->h.taps);
  if (w->h.outputs * w->w.outputs > w->lx->cpu->n_registers - 3) {
    add_rows(w, &loop, p, full, rest);
    to_end(at);
    return;
  }
  lp_ref seen[MOST_ROWS], all = lp_const(k, TT_BOOL, 1);
  for (int64_t h = 0; h < w->h.outputs; h++) {
    lp_ref e = meets(w, 0, p.line, lp_int(k, h));
    seen[h] = lp_op(k, IR_max, TT_I64, lp_op(k, IR_min, TT_I64, e, lp_int(k, w->see.size[0] - 1), 0), lp_int(k, 0), 0);       /* itself, with its range known */
    all = lp_op(k, IR_and, TT_BOOL, all, is_inside(w, 0, e), 0);
  }
  lp_cursor inside = when(w, &loop, all), others = when(w, &loop, lp_op(k, IR_not, TT_BOOL, all, 0, 0));
  add_line(w, &inside, p, full, rest, 0, seen);
  add_rows(w, &others, p, full, rest);
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

void con_window_sums(lower_ctx *lx, ir_ref row, const contraction *c, const pass_window *see) {
  const ir_node *n = ir_at(lx->g, row), *y = ir_at(lx->g, n->args[1]);
  lp_kernel *k = lx->k;
  int64_t parts = ir_int(n, "split") > 1 ? ir_int(n, "split") : 1, size = (int64_t)tt_dtype_size(c->acc_type), lanes = lx->cpu->vector_bytes / size;
  window_sums w = {.lx = lx, .k = k, .row = row, .see = *see, .h = c->space[0], .w = c->space[1], .acc_type = c->acc_type, .channels = y->dim[0], .images = y->dim[2] / parts, .split = parts > 1};
  w.lanes = lanes < 2 ? 2 : lanes, w.panels = (w.channels + w.lanes - 1) / w.lanes;
  int64_t count = w.h.outputs * w.w.outputs, full = w.channels / w.lanes, rest = w.channels % w.lanes;
  int64_t most = lx->cpu->l1d / 2 / (count * w.lanes * size), blocks = most > 0 && full > most ? con_nearest_divisor(full, (full + most - 1) / most) : 1;
  if (full / blocks * 2 < most) blocks = 1;
  w.ahead = blocks == 1;
  w.sums = lp_buffer_add(k, "sums", w.acc_type, count * w.panels * w.lanes, true, true);
  k->tasks = parts;
  lp_cursor body = {&k->body}, loop;
  int zero = lp_var_add(k, "z", count * w.panels * w.lanes);
  lp_for(k, &body, zero, 0, count * w.panels * w.lanes, (int)w.lanes, &loop);
  lp_stmt *s = lp_append(k, &loop, LS_STORE);
  s->buffer = w.sums, s->index = lp_var(k, zero), s->value = lp_const(k, w.acc_type, 0);
  to_end(&body);
  place p = {.part = lp_var(k, 0)};
  loop = body;
  p.image = lp_add(k, lp_mul(k, p.part, w.images), open(&w, &loop, "n", w.images));
  lp_cursor block = loop;
  p.panel = lp_mul(k, open(&w, &block, "b", blocks), full / blocks);
  add_lines(&w, &block, p, full / blocks, blocks > 1 ? 0 : rest);
  to_end(&loop);
  p.panel = lp_int(k, full);
  if (rest && blocks > 1) add_lines(&w, &loop, p, 0, rest);
  to_end(&body);
  loop = body;
  if (full) {
    p.panel = open(&w, &loop, "p", full);
    store_panel(&w, &loop, p, w.lanes);
    to_end(&body);
  }
  p.panel = lp_int(k, full);
  if (rest) store_panel(&w, &body, p, rest);
}
