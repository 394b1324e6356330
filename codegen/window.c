/* window.c: convolutions whose sum is short (passes/window.c): depthwise and grouped ones, first layers. There is little to do for each element, so
 * everything is read once, in the order in which it lies, and without a border in memory:
 *
 *     task = some lines of results of an image
 *       for each line, for each tile of T results of it, for each panel of L channels
 *         acc[T] = 0
 *         for each tap of the outer axes: if it sees the image
 *           for each tap of the last axis that does        acc[i] += x[column of i] * w[tap]
 *         epilogue, store
 *
 * Tiles at the two ends of a line are code of their own, in which multiplications with the border are left out; all others are one loop. A
 * depthwise convolution has its vectors along the channels of both operands, and neighbouring results share what they load; else x is a scalar that
 * meets a vector of output channels. Weights are packed by the first task of a call, panel by panel, and stay. Phases (contract.c) of a dilated x, whose
 * results lie side by side, are done line by line together.
 *
 * Of few output channels (the gradient of a first layer's image, the last layer of a decoder) vectors would be mostly empty. There they lie along the channels that
 * are summed, blocks of L of them, in both operands, and the lanes of each sum are added up at the end of its tile. */
#include "contract.h"

enum { AT_BORDER = 20, STRAIGHT = 120 };
/* AT_BORDER: half cycles that a loop of its own costs for a tap; STRAIGHT: most multiply-adds of a tile that are written out for all taps */

typedef struct {
  lower_ctx *lx;
  lp_kernel *k;
  ir_ref row;
  const contraction *phases;
  int n_phases, D;
  pass_window see;              /* where x lies in what the convolution reads */
  tt_dtype acc_type;
  int64_t groups, extent, channels, images, outer[3], lines, block;      /* groups that are looped over; of the vector axis; summed in a group; lines of an image, of a task */
  int64_t lanes, vectors, tile, panels;      /* vectors: of the machine, that the lanes are; dots: panels of summed channels */
  int weights, stage;           /* scratch */
  bool ahead;                   /* what the next line reads is asked for early */
  bool slow;                    /* the epilogue is a loop over the tile's stored sums */
} window;

typedef struct {
  const contraction *c;         /* its phase */
  int64_t first_weight;         /* of the phase, in scratch, in steps of `lanes` */
  lp_ref image, q[3], group, panel, place;       /* q: of the outer axes; place: of the vector axis, lane 0 */
  int64_t width;
  bool inside;                  /* a line of which no outer tap sees the border */
} tile_at;

static int64_t outer_taps(const window *w, const contraction *c) {
  int64_t n = 1;
  for (int i = 0; i < w->D - 1; i++) n *= c->space[i].taps;
  return n;
}
static int64_t all_taps(const window *w, const contraction *c) { return outer_taps(w, c) * c->space[w->D - 1].taps; }

/* Of a phase, in steps of `lanes`. */
static int64_t weights_of(const window *w, const contraction *c) { return w->groups * w->panels * all_taps(w, c) * (w->see.dots ? w->extent : w->channels); }

static lp_ref as_acc(window *w, lp_ref e) { return w->k->exprs[e].dtype == w->acc_type ? e : lp_op(w->k, IR_cast, w->acc_type, e, 0, 0); }

/* Where result q reads under tap `tap` of spatial axis i, counted in x without its border. */
static lp_ref seen_at(window *w, const contraction *c, int i, lp_ref q, lp_ref tap) {
  const spatial *s = &c->space[i];
  return lp_add(w->k, lp_add(w->k, lp_mul(w->k, q, s->step), lp_mul(w->k, tap, s->tap_step)), lp_int(w->k, s->x_first - w->see.lo[i]));
}

static lp_ref in_range(window *w, lp_ref e, int64_t size) {
  lp_ref low = lp_op(w->k, IR_ge, TT_BOOL, e, lp_int(w->k, 0), 0);
  return lp_op(w->k, IR_and, TT_BOOL, low, lp_op(w->k, IR_lt, TT_BOOL, e, lp_int(w->k, size), 0), 0);
}
static bool always(const window *w, lp_ref guard, bool value) { return w->k->exprs[guard].kind == LX_CONST && (w->k->exprs[guard].imm != 0) == value; }

static lp_ref weight_index(window *w, const tile_at *t, lp_ref outer_tap, lp_ref tap, lp_ref channel, lp_ref lane) {
  lp_kernel *k = w->k;
  const contraction *c = t->c;
  lp_ref e = lp_add(k, lp_mul(k, t->group, w->panels), t->panel);
  e = lp_add(k, lp_mul(k, e, outer_taps(w, c)), outer_tap);
  e = lp_add(k, lp_mul(k, e, c->space[w->D - 1].taps), tap);
  e = lp_add(k, lp_add(k, lp_mul(k, e, w->channels), channel), lp_int(k, t->first_weight));
  return lp_add(k, lp_mul(k, e, w->lanes), lane);
}

/* Of few outputs: those of a tap lie side by side, for a panel of summed channels. */
static lp_ref dot_weight(window *w, const tile_at *t, lp_ref outer_tap, lp_ref panel, lp_ref tap, lp_ref output, lp_ref lane) {
  lp_kernel *k = w->k;
  lp_ref e = lp_add(k, lp_mul(k, outer_tap, t->c->space[w->D - 1].taps), tap);
  e = lp_add(k, lp_mul(k, e, w->panels), panel);
  e = lp_add(k, lp_add(k, lp_mul(k, e, w->extent), output), lp_int(k, t->first_weight));
  return lp_add(k, lp_mul(k, e, w->lanes), lane);
}

/* ---- packing ---- */

static void pack_panel(window *w, lp_cursor *at, tile_at t, lp_ref outer_tap, lp_ref tap, lp_ref channel, const lp_ref *outer) {
  lp_kernel *k = w->k;
  const ir_node *n = ir_at(w->lx->g, w->row);
  int lane = lp_var_add(k, "l", t.width);
  lp_cursor inside;
  lp_for(k, at, lane, 0, t.width, (int)w->lanes, &inside);
  lp_ref l = lp_var(k, lane), v = lp_add(k, lp_mul(k, t.panel, w->lanes), l), zero = lp_int(k, 0);
  lp_ref index[TT_MAX_RANK] = {w->see.depthwise ? v : t.group, w->see.depthwise ? zero : w->see.dots ? channel : v, w->see.dots ? v : channel};
  for (int i = 0; i < w->D; i++) {
    const spatial *s = &t.c->space[i];
    index[3 + i] = lp_add(k, lp_mul(k, i < w->D - 1 ? outer[i] : tap, s->w_step), lp_int(k, s->w_first));
  }
  lp_stmt *s = lp_append(k, &inside, LS_STORE);
  s->buffer = w->weights, s->value = lower_pull(w->lx, n->args[1], index);
  s->index = w->see.dots ? dot_weight(w, &t, outer_tap, t.panel, tap, channel, l) : weight_index(w, &t, outer_tap, tap, channel, l);
}

static lp_ref open(window *w, lp_cursor *at, const char *name, int64_t extent) {
  if (extent == 1) return lp_int(w->k, 0);
  int var = lp_var_add(w->k, name, extent);
  lp_cursor inside;
  lp_for(w->k, at, var, 0, extent, 0, &inside);
  *at = inside;
  return lp_var(w->k, var);
}

static void to_end(lp_cursor *at) {
  while (*at->tail) at->tail = &(*at->tail)->next;
}

static void pack(window *w, lp_cursor *at) {
  int64_t across = w->see.dots ? w->channels : w->extent, full = across / w->lanes, rest = across % w->lanes, before = 0;
  for (int p = 0; p < w->n_phases; p++) {
    const contraction *c = &w->phases[p];
    if (all_taps(w, c))
      for (int part = 0; part < 2; part++) {
        if (part ? !rest : !full) continue;
        tile_at t = {.c = c, .first_weight = before, .width = part ? rest : w->lanes};
        lp_cursor body = *at;
        lp_ref outer[3] = {0}, outer_tap = lp_int(w->k, 0);
        t.group = open(w, &body, "g", w->groups);
        t.panel = part ? lp_int(w->k, full) : open(w, &body, "p", full);
        for (int i = 0; i < w->D - 1; i++) {
          outer[i] = open(w, &body, "t", c->space[i].taps);
          outer_tap = lp_add(w->k, lp_mul(w->k, outer_tap, c->space[i].taps), outer[i]);
        }
        lp_ref tap = open(w, &body, "t", c->space[w->D - 1].taps), channel = open(w, &body, "c", w->see.dots ? w->extent : w->channels);
        pack_panel(w, &body, t, outer_tap, tap, channel, outer);
        to_end(at);
      }
    before += weights_of(w, c);
  }
}

/* ---- a tile ---- */

static lp_ref pixel(window *w, const tile_at *t, const lp_ref *seen, lp_ref column, lp_ref channel) {
  lp_ref zero = lp_int(w->k, 0), index[TT_MAX_RANK] = {t->image, w->see.depthwise ? t->place : t->group, w->see.depthwise ? zero : channel};
  for (int i = 0; i < w->D; i++) index[3 + i] = lp_add(w->k, i < w->D - 1 ? seen[i] : column, lp_int(w->k, w->see.lo[i]));
  return as_acc(w, lower_pull(w->lx, ir_at(w->lx->g, w->row)->args[0], index));
}

static void add(window *w, lp_cursor *at, int acc, int64_t i, lp_ref x, lp_ref weight) {
  lp_kernel *k = w->k;
  lp_ref index = lp_int(k, i), old = lp_get(k, acc, index), factor = as_acc(w, weight);
  lp_stmt *s = lp_append(k, at, LS_SET);
  s->local = acc, s->index = index;
  if (tt_dtype_in(w->acc_type, TT_REAL)) s->value = lp_fma(k, x, factor, old);
  else s->value = lp_op(k, IR_add, w->acc_type, lp_op(k, IR_mul, w->acc_type, x, factor, 0), old, 0);
}

/* Both operands have the lanes. Column by column, so that one load serves all results and taps that meet there. */
static void depthwise_taps(window *w, lp_cursor *at, const tile_at *t, const lp_ref *seen, lp_ref outer_tap, lp_ref first, int64_t rows, lp_ref lane, int acc) {
  lp_kernel *k = w->k;
  const spatial *s = &t->c->space[w->D - 1];
  int64_t last = (rows - 1) * s->step + (s->taps - 1) * s->tap_step;
  for (int64_t offset = 0; offset <= last; offset++)
    for (int64_t tap = s->taps - 1; tap >= 0; tap--) {
      int64_t by = offset - tap * s->tap_step;
      if (by < 0 || by % s->step || by / s->step >= rows) continue;
      lp_ref column = seen_at(w, t->c, w->D - 1, lp_add(k, first, lp_int(k, by / s->step)), lp_int(k, tap));
      if (!always(w, in_range(w, column, w->see.size[w->D - 1]), true)) continue;
      add(w, at, acc, by / s->step, pixel(w, t, seen, column, 0), lp_load(k, w->weights, weight_index(w, t, outer_tap, lp_int(k, tap), lp_int(k, 0), lane), 0, 0));
    }
}

/* One step of the sum: a vector of weights, and of each result that sees the image here a scalar. */
static void dense_step(window *w, lp_cursor *at, const tile_at *t, const lp_ref *seen, lp_ref outer_tap, lp_ref tap, lp_ref channel, lp_ref first, int64_t rows, lp_ref lane, int acc) {
  lp_kernel *k = w->k;
  for (int64_t i = 0; i < rows; i++) {
    lp_ref column = seen_at(w, t->c, w->D - 1, lp_add(k, first, lp_int(k, i)), tap);
    if (!always(w, in_range(w, column, w->see.size[w->D - 1]), true)) continue;
    add(w, at, acc, i, pixel(w, t, seen, column, channel), lp_load(k, w->weights, weight_index(w, t, outer_tap, tap, channel, lane), 0, 0));
  }
}

static void dense_taps(window *w, lp_cursor *at, const tile_at *t, const lp_ref *seen, lp_ref outer_tap, lp_ref first, int64_t rows, lp_ref lane, int acc, bool border) {
  lp_kernel *k = w->k;
  const spatial *s = &t->c->space[w->D - 1];
  if (border) {
    for (int64_t tap = 0; tap < s->taps; tap++) {
      lp_cursor body = *at;
      lp_ref channel = open(w, &body, "c", w->channels);
      dense_step(w, &body, t, seen, outer_tap, lp_int(k, tap), channel, first, rows, lane, acc);
      to_end(at);
    }
    return;
  }
  /* Taps and channels are one loop where they lie one behind the other. */
  int var = lp_var_add(k, "k", s->taps * w->channels);
  lp_ref both = lp_var(k, var), tap = lp_div(k, both, w->channels), channel = lp_mod(k, both, w->channels);
  lp_ref x = pixel(w, t, seen, seen_at(w, t->c, w->D - 1, first, tap), channel);
  int64_t stride;
  bool one = k->exprs[x].kind == LX_LOAD && lp_affine(k, k->exprs[x].a[0], var, &stride);
  lp_cursor body = *at;
  if (one) lp_for(k, at, var, 0, s->taps * w->channels, 0, &body);
  else tap = open(w, &body, "t", s->taps), channel = open(w, &body, "c", w->channels);
  dense_step(w, &body, t, seen, outer_tap, tap, channel, first, rows, lane, acc);
  to_end(at);
}

/* One tap of few outputs: a vector of each pixel, and of each output; acc[pixel][output]. The fewer of the two stay in registers. */
static void dot_step(window *w, lp_cursor *at, const tile_at *t, const lp_ref *seen, lp_ref outer_tap, lp_ref panel, lp_ref tap, lp_ref first, int64_t rows, lp_ref lane, int acc) {
  lp_kernel *k = w->k;
  int64_t outputs = w->extent;
  for (int64_t n = 0; n < rows * outputs; n++) {
    int64_t i = outputs <= rows ? n / outputs : n % rows, o = outputs <= rows ? n % outputs : n / rows;
    lp_ref column = seen_at(w, t->c, w->D - 1, lp_add(k, first, lp_int(k, i)), tap), channel = lp_add(k, lp_mul(k, panel, w->lanes), lane);
    if (!always(w, in_range(w, column, w->see.size[w->D - 1]), true)) continue;
    add(w, at, acc, i * outputs + o, pixel(w, t, seen, column, channel), lp_load(k, w->weights, dot_weight(w, t, outer_tap, panel, tap, lp_int(k, o), lane), 0, 0));
  }
}

/* Loops, not written out, as taps that share what they load would want more registers than there are: but for one output, which is bound by loads. */
static void dot_taps(window *w, lp_cursor *at, const tile_at *t, const lp_ref *seen, lp_ref outer_tap, lp_ref first, int64_t rows, lp_ref lane, int acc, bool border) {
  lp_kernel *k = w->k;
  const spatial *s = &t->c->space[w->D - 1];
  int64_t full = w->channels / w->lanes, stride;
  bool rest = t->width < w->lanes, all = !rest && !border && w->channels % w->lanes == 0;
  if (w->extent == 1 && s->taps <= 4) {
    lp_cursor body = *at;
    lp_ref panel = rest ? lp_int(k, full) : open(w, &body, "p", full);
    for (int64_t tap = 0; tap < s->taps; tap++) dot_step(w, &body, t, seen, outer_tap, panel, lp_int(k, tap), first, rows, lane, acc);
    to_end(at);
    return;
  }
  for (int64_t i = 0; i < (border ? s->taps : 1); i++) {
    lp_cursor body = *at;
    lp_ref tap = lp_int(k, i), panel = lp_int(k, full);
    if (all) {            /* taps and panels are one loop where they lie one behind the other */
      int var = lp_var_add(k, "k", s->taps * full);
      lp_ref both = lp_var(k, var), x = pixel(w, t, seen, seen_at(w, t->c, w->D - 1, first, lp_div(k, both, full)), lp_add(k, lp_mul(k, lp_mod(k, both, full), w->lanes), lane));
      if ((all = k->exprs[x].kind == LX_LOAD && lp_affine(k, k->exprs[x].a[0], var, &stride))) {
        lp_for(k, at, var, 0, s->taps * full, 0, &body);
        tap = lp_div(k, both, full), panel = lp_mod(k, both, full);
      }
    }
    if (!all && !border) tap = open(w, &body, "t", s->taps);
    if (!all && !rest) panel = open(w, &body, "p", full);
    dot_step(w, &body, t, seen, outer_tap, panel, tap, first, rows, lane, acc);
    to_end(at);
  }
}

static void store_at(window *w, lp_cursor *at, const tile_at *t, lp_ref last, lp_ref value) {
  lp_kernel *k = w->k;
  lp_ref zero = lp_int(k, 0), place[MAX_AXES] = {t->image, w->see.depthwise ? t->place : t->group, w->see.depthwise ? zero : t->place}, index[TT_MAX_RANK];
  for (int i = 0; i < w->D; i++) place[3 + i] = i < w->D - 1 ? t->q[i] : last;
  con_result_at(t->c, k, place, index);
  con_store(w->lx, w->row, at, index, value);
}

/* The taps of outer axis i and those within. */
static void outer_taps_from(window *w, lp_cursor at, const tile_at *t, int i, lp_ref *seen, lp_ref outer_tap, lp_ref first, int64_t rows, lp_ref lane, int acc, bool border) {
  lp_kernel *k = w->k;
  if (!all_taps(w, t->c)) return;
  if (i == w->D - 1) {
    if (w->see.depthwise) depthwise_taps(w, &at, t, seen, outer_tap, first, rows, lane, acc);
    else if (w->see.dots) dot_taps(w, &at, t, seen, outer_tap, first, rows, lane, acc, border);
    else dense_taps(w, &at, t, seen, outer_tap, first, rows, lane, acc, border);
    return;
  }
  const spatial *o = &t->c->space[i];
  bool straight = w->see.depthwise && t->inside && all_taps(w, t->c) * rows * w->vectors <= STRAIGHT;
  for (int64_t j = 0; j < (straight ? o->taps : 1); j++) {
    lp_cursor body = at;
    lp_ref tap = straight ? lp_int(k, j) : open(w, &body, "t", o->taps), e = seen_at(w, t->c, i, t->q[i], tap), sees = in_range(w, e, w->see.size[i]);
    if (!always(w, sees, true)) {
      lp_stmt *s = lp_append(k, &body, LS_IF);
      s->guard = sees;
      body.tail = &s->body;
    }
    seen[i] = lp_op(k, IR_max, TT_I64, lp_op(k, IR_min, TT_I64, e, lp_int(k, w->see.size[i] - 1), 0), lp_int(k, 0), 0);      /* itself, with its range known */
    outer_taps_from(w, body, t, i + 1, seen, lp_add(k, lp_mul(k, outer_tap, o->taps), tap), first, rows, lane, acc, border);
    to_end(&at);
  }
}

/* What the next line will be the first to read, asked for a line early: of a tile's pixels every panel takes an equal part, in the order in which they lie. */
static void ask_ahead(window *w, lp_cursor *at, const tile_at *t, lp_ref first, int64_t rows) {
  lp_kernel *k = w->k;
  const spatial *o = &t->c->space[w->D - 2], *s = &t->c->space[w->D - 1];
  lp_ref seen[3] = {0}, column = seen_at(w, t->c, w->D - 1, first, lp_int(k, s->taps > s->step ? s->taps - s->step : 0));
  for (int i = 0; i < w->D - 2; i++) seen[i] = lp_int(k, 0);
  for (int64_t j = 1; j <= o->step; j++) {
    lp_ref e = lp_add(k, seen_at(w, t->c, w->D - 2, t->q[w->D - 2], lp_int(k, o->taps - 1)), lp_int(k, j)), x[2];
    seen[w->D - 2] = lp_op(k, IR_max, TT_I64, lp_op(k, IR_min, TT_I64, e, lp_int(k, w->see.size[w->D - 2] - 1), 0), lp_int(k, 0), 0);
    for (int i = 0; i < 2; i++) {
      x[i] = pixel(w, t, seen, lp_add(k, column, lp_int(k, i)), lp_int(k, 0));
      if (k->exprs[x[i]].kind != LX_LOAD) return;
    }
    lp_ref from = k->exprs[x[0]].a[0];
    int64_t apart;
    if (!lp_is_int(k, lp_op(k, IR_sub, TT_I64, k->exprs[x[1]].a[0], from, 0), &apart) || apart != w->extent) return;
    for (int64_t i = 0; i < rows * s->step; i++) {
      lp_stmt *p = lp_append(k, at, LS_PREFETCH);
      p->buffer = (int)k->exprs[x[0]].imm, p->index = lp_add(k, from, lp_mul(k, lp_add(k, lp_mul(k, t->panel, rows * s->step - 1), lp_int(k, i)), w->lanes));
    }
  }
}

/* `rows` results from number `first` on of a line, for one panel. */
static void tile(window *w, lp_cursor *at, tile_at t, lp_ref first, int64_t rows, bool border) {
  lp_kernel *k = w->k;
  int lane_var = lp_var_add(k, "l", t.width), acc = lp_local_add(k, "acc", w->acc_type, (int)rows);
  lp_ref lane = lp_var(k, lane_var), from = lp_mul(k, t.panel, w->lanes), seen[3] = {0};
  lp_cursor body;
  lp_for(k, at, lane_var, 0, t.width, (int)w->lanes, &body);
  t.place = lp_add(k, from, lane);
  lp_stmt *s = lp_append(k, &body, LS_LOCAL);
  s->local = acc, s->value = lp_const(k, w->acc_type, 0);
  if (w->ahead) ask_ahead(w, &body, &t, first, rows);
  outer_taps_from(w, body, &t, 0, seen, lp_int(k, 0), first, rows, lane, acc, border);
  to_end(&body);
  for (int64_t i = 0; i < rows; i++) {
    lp_ref value = lp_get(k, acc, lp_int(k, i));
    if (!w->slow) {
      store_at(w, &body, &t, lp_add(k, first, lp_int(k, i)), value);
      continue;
    }
    s = lp_append(k, &body, LS_STORE);
    s->buffer = w->stage, s->index = lp_add(k, lane, lp_int(k, i * w->lanes)), s->value = value;
  }
  if (!w->slow) return;
  lp_cursor loop = *at;
  to_end(&loop);
  lp_ref i = open(w, &loop, "i", rows);
  lane_var = lp_var_add(k, "l", t.width);
  lp_for(k, &loop, lane_var, 0, t.width, (int)w->lanes, &body);
  lane = lp_var(k, lane_var), t.place = lp_add(k, from, lane);
  store_at(w, &body, &t, lp_add(k, first, i), lp_load(k, w->stage, lp_add(k, lp_mul(k, i, w->lanes), lane), 0, 0));
}

/* What the next line will be the first to read of these results' pixels, all channels. */
static void ask_for_line(window *w, lp_cursor *at, const tile_at *t, lp_ref first, int64_t rows) {
  lp_kernel *k = w->k;
  const spatial *o = &t->c->space[w->D - 2], *s = &t->c->space[w->D - 1];
  int64_t line = 64 / (int64_t)tt_dtype_size(w->acc_type), across, apart;
  lp_ref seen[3] = {0}, column = seen_at(w, t->c, w->D - 1, first, lp_int(k, s->taps > s->step ? s->taps - s->step : 0)), x[3];
  for (int i = 0; i < w->D - 2; i++) seen[i] = lp_int(k, 0);
  for (int64_t j = 1; j <= o->step; j++) {
    lp_ref e = lp_add(k, seen_at(w, t->c, w->D - 2, t->q[w->D - 2], lp_int(k, o->taps - 1)), lp_int(k, j));
    seen[w->D - 2] = lp_op(k, IR_max, TT_I64, lp_op(k, IR_min, TT_I64, e, lp_int(k, w->see.size[w->D - 2] - 1), 0), lp_int(k, 0), 0);
    for (int i = 0; i < 3; i++) {
      x[i] = pixel(w, t, seen, lp_add(k, column, lp_int(k, i == 1)), lp_int(k, i == 2));
      if (k->exprs[x[i]].kind != LX_LOAD) return;
    }
    lp_ref from = k->exprs[x[0]].a[0];
    if (!lp_is_int(k, lp_op(k, IR_sub, TT_I64, k->exprs[x[1]].a[0], from, 0), &across) || !lp_is_int(k, lp_op(k, IR_sub, TT_I64, k->exprs[x[2]].a[0], from, 0), &apart) || apart != 1 || across != w->channels) return;
    lp_cursor body = *at;
    lp_ref n = open(w, &body, "a", (rows * s->step * across + line - 1) / line);
    lp_stmt *p = lp_append(k, &body, LS_PREFETCH);
    p->buffer = (int)k->exprs[x[0]].imm, p->index = lp_add(k, from, lp_mul(k, n, line));
    to_end(at);
  }
}

/* `rows` results from number `first` on of a line, of few outputs: sums[row][output]. */
static void dot_tile(window *w, lp_cursor *at, tile_at t, lp_ref first, int64_t rows, bool border) {
  lp_kernel *k = w->k;
  int64_t full = w->channels / w->lanes, rest = w->channels % w->lanes;
  int sums = lp_local_add(k, "sums", w->acc_type, (int)(rows * w->extent));
  t.group = lp_int(k, 0);
  if (w->ahead) ask_for_line(w, at, &t, first, rows);
  lp_stmt *s = lp_append(k, at, LS_LOCAL);
  s->local = sums, s->value = lp_const(k, w->acc_type, 0);
  for (int part = 0; part < 2; part++) {
    t.width = part ? rest : w->lanes;
    if (part ? !rest : !full) continue;
    int lane_var = lp_var_add(k, "l", t.width), acc = lp_local_add(k, "acc", w->acc_type, (int)(rows * w->extent));
    lp_ref seen[3] = {0};
    lp_cursor body;
    lp_for(k, at, lane_var, 0, t.width, (int)w->lanes, &body);
    s = lp_append(k, &body, LS_LOCAL);
    s->local = acc, s->value = lp_const(k, w->acc_type, 0);
    outer_taps_from(w, body, &t, 0, seen, lp_int(k, 0), first, rows, lp_var(k, lane_var), acc, border);
    to_end(&body);
    for (int64_t n = 0; n < rows * w->extent; n++) {
      s = lp_append(k, &body, LS_REDUCE);
      s->op = IR_add, s->local = sums, s->index = lp_int(k, n), s->value = lp_get(k, acc, s->index);
    }
    to_end(at);
  }
  for (int64_t n = 0; n < rows * w->extent; n++) {
    lp_ref value = lp_get(k, sums, lp_int(k, n));
    t.place = lp_int(k, n % w->extent);
    if (!w->slow) store_at(w, at, &t, lp_add(k, first, lp_int(k, n / w->extent)), value);
    else {
      s = lp_append(k, at, LS_STORE);
      s->buffer = w->stage, s->index = lp_int(k, n), s->value = value;
    }
  }
  to_end(at);
  if (!w->slow) return;
  lp_cursor loop = *at, body;
  lp_ref i = open(w, &loop, "i", rows);
  int lane_var = lp_var_add(k, "l", w->extent);
  lp_for(k, &loop, lane_var, 0, w->extent, (int)w->lanes, &body);
  t.place = lp_var(k, lane_var);
  store_at(w, &body, &t, lp_add(k, first, i), lp_load(k, w->stage, lp_add(k, lp_mul(k, i, w->extent), t.place), 0, 0));
  to_end(at);
}

static void panels(window *w, lp_cursor *at, tile_at t, lp_ref first, int64_t rows, bool border) {
  if (w->see.dots) {
    dot_tile(w, at, t, first, rows, border);
    return;
  }
  int64_t full = w->extent / w->lanes, rest = w->extent % w->lanes;
  lp_cursor each = *at, body;
  t.group = open(w, &each, "g", w->groups);
  body = each;
  if (full) {
    t.panel = open(w, &body, "p", full), t.width = w->lanes;
    tile(w, &body, t, first, rows, border);
    to_end(&each);
  }
  if (rest) {
    t.panel = lp_int(w->k, full), t.width = rest;
    tile(w, &each, t, first, rows, border);
  }
  to_end(at);
}

/* ---- a line ---- */

/* Does a tile of results multiply with the border, left or right of a line? */
static bool at_border(const window *w, const contraction *c, int64_t first, int64_t rows) {
  const spatial *s = &c->space[w->D - 1];
  int64_t from = first * s->step + s->x_first - w->see.lo[w->D - 1], last = from + (rows - 1) * s->step + (s->taps - 1) * s->tap_step;
  return from < 0 || last >= w->see.size[w->D - 1];
}

static void line(window *w, lp_cursor *at, tile_at t) {
  int64_t results = t.c->space[w->D - 1].outputs, tiles = (results + w->tile - 1) / w->tile, rows = tiles ? (results + tiles - 1) / tiles : 0, high = tiles - (tiles * rows - results);
  for (int64_t i = 0, first = 0; i < tiles;) {             /* balanced: those from `high` on have a row less */
    int64_t size = i < high ? rows : rows - 1, end = i + 1, next = first + size;
    bool border = at_border(w, t.c, first, size);
    for (; !border && end < (i < high ? high : tiles) && !at_border(w, t.c, next, size); end++) next += size;
    lp_cursor body = *at;
    lp_ref number = open(w, &body, "x", end - i);
    panels(w, &body, t, lp_add(w->k, lp_mul(w->k, number, size), lp_int(w->k, first)), size, border);
    to_end(at);
    i = end, first = next;
  }
}

/* A line at outer place t.q: once for those of which all outer taps see the image, once for the others. */
static void lines(window *w, lp_cursor *at, tile_at t) {
  lp_kernel *k = w->k;
  lp_ref within = lp_const(k, TT_BOOL, 1), q[3];
  for (int i = 0; i < w->D - 1; i++) {
    const spatial *o = &t.c->space[i];
    int64_t from = w->see.lo[i] - o->x_first, low = from > 0 ? (from + o->step - 1) / o->step : 0, last = w->see.size[i] - 1 + from - (o->taps - 1) * o->tap_step;
    int64_t high = last < 0 ? -1 : last / o->step < o->outputs - 1 ? last / o->step : o->outputs - 1;
    if (low > high) within = lp_const(k, TT_BOOL, 0);
    else within = lp_op(k, IR_and, TT_BOOL, within, lp_op(k, IR_and, TT_BOOL, lp_op(k, IR_ge, TT_BOOL, t.q[i], lp_int(k, low), 0), lp_op(k, IR_le, TT_BOOL, t.q[i], lp_int(k, high), 0), 0), 0);
    q[i] = lp_op(k, IR_max, TT_I64, lp_op(k, IR_min, TT_I64, t.q[i], lp_int(k, high), 0), lp_int(k, low), 0);       /* itself, with its range known */
  }
  for (int part = 0; part < 2; part++) {
    tile_at here = t;
    lp_ref guard = part ? lp_op(k, IR_not, TT_BOOL, within, 0, 0) : within;
    if (always(w, guard, false)) continue;
    here.inside = !part;
    for (int i = 0; !part && i < w->D - 1; i++) here.q[i] = q[i];
    lp_cursor body = *at;
    if (!always(w, guard, true)) {
      lp_stmt *s = lp_append(k, at, LS_IF);
      s->guard = guard;
      body.tail = &s->body;
    }
    line(w, &body, here);
    to_end(at);
  }
}

/* ---- choosing ---- */

/* Half cycles of a tile: two multiply-adds and two loads a cycle, and 4 cycles of latency. */
static int64_t tile_cost(const window *w, const contraction *c, int64_t rows, int64_t vectors) {
  const spatial *s = &c->space[w->D - 1];
  int64_t taps = s->taps, columns = (rows - 1) * (s->step < s->tap_step * taps ? s->step : taps) + taps, work = rows * vectors, step = work < 8 ? 8 : work;
  int64_t loads = w->see.depthwise ? (columns + taps) * vectors : (rows + vectors) * taps;
  return outer_taps(w, c) * (w->see.depthwise ? (loads > step * taps ? loads : step * taps) : w->channels * (loads > step * taps ? loads : step * taps)) + 2 * work + 24;
}

static void choose(window *w) {
  const cg_cpu *cpu = w->lx->cpu;
  int64_t size = (int64_t)tt_dtype_size(w->acc_type), machine = cpu->vector_bytes / size, best = INT64_MAX;
  if (machine < 2) machine = 2;
  const contraction *c = &w->phases[0];
  for (int p = 1; p < w->n_phases; p++)
    if (all_taps(w, &w->phases[p]) > all_taps(w, c)) c = &w->phases[p];
  int64_t results = c->space[w->D - 1].outputs, held = c->space[w->D - 1].taps < 3 ? c->space[w->D - 1].taps : 3;
  if (w->see.dots) {
    int64_t most = cpu->n_registers / w->extent, beside = cpu->fma ? 1 : 2;      /* registers for what is on its way */
    while (most > 1 && most * w->extent + (most < w->extent ? most : w->extent) + beside > cpu->n_registers) most--;
    w->lanes = machine, w->vectors = 1, w->tile = most > 8 ? 8 : most;
  }
  for (int64_t n = 1; n <= 4 && !w->see.dots; n *= 2) {
    int64_t lanes = n * machine, rows = w->see.depthwise ? (cpu->n_registers - (held + 1) * n) / n : (cpu->n_registers - 1 - n) / n, rest = 1, cost = 0;
    if (n > 1 && lanes / 2 >= w->extent) break;
    if (w->see.depthwise && lanes * size < 64 && lanes < w->extent) continue;          /* whole lines can be asked for and stored past the caches */
    if (rows > 14) rows = 14;
    if (rows < 1) rows = 1;
    int64_t tiles = (results + rows - 1) / rows;
    if (tiles < 1) tiles = 1;
    rows = (results + tiles - 1) / tiles;
    int64_t low = tiles * rows - results;
    while (rest * machine < w->extent % lanes) rest *= 2;
    for (int64_t i = 0; i < tiles && !w->see.depthwise; i++)
      if (at_border(w, c, i * rows, i < tiles - low ? rows : rows - 1)) cost += AT_BORDER * all_taps(w, c) * ((w->extent + lanes - 1) / lanes);
    for (int less = 0; less < 2; less++)
      cost += (less ? low : tiles - low) * (w->extent / lanes * tile_cost(w, c, rows - less, n) + (w->extent % lanes ? tile_cost(w, c, rows - less, rest) : 0));
    if (best == INT64_MAX || cost < best - best / 50) best = cost, w->lanes = lanes, w->vectors = n, w->tile = rows;
  }
  w->panels = ((w->see.dots ? w->channels : w->extent) + w->lanes - 1) / w->lanes;
  /* A task is worth its call, and there are some for every thread of a small team; beyond that the more lines the better: neighbours share what they read. */
  double work = 2.0 * (double)(w->groups * w->extent * w->channels);
  for (int i = 0; i < w->D; i++) work *= (double)(i < w->D - 1 ? 1 : ir_at(w->lx->g, w->row)->dim[2 + w->D]) * (double)c->space[i].taps;
  w->block = 1;
  while (w->block < w->lines && (w->block * work < 4e5 || w->images * w->lines / w->block > 64)) w->block++;
  w->block = con_nearest_divisor(w->lines, w->block);
}

bool con_window(lower_ctx *lx, ir_ref row, const contraction *phases, int n_phases) {
  const ir_node *n = ir_at(lx->g, row), *x = ir_at(lx->g, n->args[0]), *f = ir_at(lx->g, n->args[1]);
  lp_kernel *k = lx->k;
  window w = {.lx = lx, .k = k, .row = row, .phases = phases, .n_phases = n_phases, .D = f->rank - 3, .acc_type = phases[0].acc_type, .images = n->dim[0], .channels = f->dim[2], .lines = 1};
  if (!pass_window_of(lx->g, row, &w.see) || w.see.weights) return false;
  if (!w.see.pad || ir_at(lx->g, w.see.pad)->region != lx->region)          /* what it reads exists as it is */
    for (int i = 0; i < w.D; i++) w.see.lo[i] = 0, w.see.size[i] = x->dim[3 + i];
  if (w.see.sums) {
    con_window_sums(lx, row, phases, &w.see);
    return true;
  }
  w.groups = w.see.depthwise ? 1 : n->dim[1], w.extent = w.see.depthwise ? n->dim[1] : n->dim[2];
  int64_t weights = 0;
  for (int i = 0; i < w.D - 1; i++) {
    for (int p = 0; p < n_phases; p++)
      if (phases[p].space[i].outputs > w.outer[i]) w.outer[i] = phases[p].space[i].outputs;
    w.lines *= w.outer[i];
  }
  choose(&w);
  for (int p = 0; p < n_phases; p++) weights += weights_of(&w, &phases[p]);
  w.ahead = (w.see.depthwise || w.see.dots) && w.D > 1;
  w.slow = con_costly(lx->g, lx->region);
  w.weights = lp_buffer_add(k, "weights", (tt_dtype)f->dtype, weights * w.lanes, true, true);
  if (w.slow) w.stage = lp_buffer_add(k, "stage", w.acc_type, w.tile * (w.see.dots ? w.extent : w.lanes), true, true);
  k->tasks = w.images * (w.lines / w.block);
  lp_cursor body = {&k->body}, packing = body;
  if (k->tasks > 1) {
    lp_stmt *s = lp_append(k, &packing, LS_IF);
    s->guard = lp_op(k, IR_eq, TT_BOOL, lp_var(k, 0), lp_begin(k), 0);
    packing.tail = &s->body;
  }
  pack(&w, &packing);
  to_end(&body);
  tile_at t = {.image = lp_div(k, lp_var(k, 0), w.lines / w.block)};
  lp_ref number = lp_add(k, lp_mul(k, lp_mod(k, lp_var(k, 0), w.lines / w.block), w.block), open(&w, &body, "y", w.block)), q[3] = {0};
  for (int i = w.D - 2; i >= 0; i--) {
    q[i] = i ? lp_mod(k, number, w.outer[i]) : number;
    number = i ? lp_div(k, number, w.outer[i]) : number;
  }
  for (int p = 0; p < n_phases; p++) {
    lp_cursor inside = body;
    t.c = &phases[p];
    for (int i = 0; i < w.D - 1; i++) {
      t.q[i] = q[i];
      int64_t outputs = phases[p].space[i].outputs;
      if (outputs == w.outer[i]) continue;
      lp_stmt *s = lp_append(k, &inside, LS_IF);
      s->guard = lp_op(k, IR_lt, TT_BOOL, q[i], lp_int(k, outputs), 0);
      inside.tail = &s->body;
      if (outputs > 0) t.q[i] = lp_op(k, IR_min, TT_I64, q[i], lp_int(k, outputs - 1), 0);           /* itself, with its range known */
    }
    lines(&w, &inside, t);
    to_end(&body);
    t.first_weight += weights_of(&w, &phases[p]);
  }
  lower_stream_stores(lx);
  return true;
}
