/* weights.c: the gradient of a convolution's weights: few results, each a sum over all pixels of all images.
 *
 *     %d = conv(%x, %dy, split=S) : f32[S,C,1,O,R,S]      of x [C,1,N,X,Y] and dy [1,O,N,H,W], both channels-last
 *
 *     task = a part of the images, some of the channels c and of the panels of L channels o
 *       M = 0                                   sums of all its results: [tap][panel][c][L]
 *       for each block of K pixels
 *         V = x, D = dy                         what the block reads, channels side by side and L of them side by side
 *         M[tap][panel][c][l] += sum over pixels k of V[k + tap][c] * D[panel][k][l]          register tiles of R channels x L
 *       epilogue, store
 *
 * Where x has few channels (a first layer; passes/window.c says where), the S taps of a line are channels too: they lie one behind the other, so S*C neighbours of V
 * meet each pixel. The pad of such an x is a part of the kernel: V's border stays 0, and lines outside of the image are written as zeros.
 *
 * Copying costs little, as all taps and all tiles read the copies, and what is read of memory is read once, line after line. A block is small enough that
 * the panel and the pixels of a tile stay in L1, and long enough that adding to M costs little.
 *
 * In Winograd's form (conv's winograd=4: F(3x3,4x4), Lavin & Gray 2015) a block is K tiles of 4x4 pixels of dy and the 6x6 pixels of x under each:
 *
 *         V[q] = B^T x B, D[q] = P dy P^T       P: a polynomial's values at 0 1 -1 2 -2 inf; q counts the 36 positions
 *         M[q][panel][c][l] += sum over tiles k of V[q][k][c] * D[q][panel][k][l]
 *       A^T F M F A, with the scale factors F of P left to the end */
#include <string.h>

#include "contract.h"

enum { POSITIONS = 36, TAPS = 9, SIDE = 6 };

typedef struct {
  contraction *c;
  lower_ctx *lx;
  lp_kernel *k;
  tt_dtype t;
  bool winograd;
  int rank, first;                                    /* of the result; number of the axis of c */
  pass_window see;                                    /* few channels: where x lies in what the convolution reads */
  int64_t C, O, N, H, W, R, S, X, Y, stride[2];       /* N: images of a part; X, Y: of x */
  int64_t along, apart;                               /* taps of a line that are channels (C counts them), 1: none; pixels of V from one of dy to the next */
  int64_t lanes, L, rows;                             /* of a vector; of a panel; of a register tile */
  int64_t group, n_groups, panels, n_panel_groups;    /* channels c of a task; panels of one */
  int64_t images, lines, across, up;                  /* of a block, direct: whole images or some lines of one; what V holds of a line, lines of V of an image */
  int64_t steps, n_blocks, tiles_h, tiles_w;
  int64_t taps, wide;                                 /* R*S or POSITIONS; elements between two pixels of V */
  int64_t v_apart, d_apart;                           /* between two positions of V and D: not a power of two, so that a tile's fall into different sets of L1 */
  int v, d, m, mid;                                   /* scratch; mid: between the two passes of a transform */
  lp_ref at[MAX_AXES], c0, panel0;
} weights;

static int64_t divide_up(int64_t n, int64_t by) { return (n + by - 1) / by; }

/* ---- choosing ---- */

bool con_weights(const contraction *c, bool winograd) {
  const ir_node *n = ir_at(c->g, c->row), *x = ir_at(c->g, n->args[0]);
  pass_window see;
  if (pass_window_of(c->g, c->row, &see) && see.weights) return !winograd;
  int first = ir_int(n, "split") > 1;
  if (n->op != IR_conv || x->rank != 5 || x->dim[1] != 1 || (c->acc_type != TT_F32 && c->acc_type != TT_F64)) return false;
  const axis *a = c->axes + first;
  bool lined = a[0].affine[A] && a[0].stride[A] == 1 && a[2].affine[B] && a[2].stride[B] == 1 && a[0].extent >= 8 && a[2].extent >= 8;
  int64_t taps = a[3].extent * a[4].extent, pixels = 1;
  for (int i = 0; i < 3; i++) pixels *= c->axes[n->rank + i].extent;
  for (int i = 0; i < 2; i++) lined &= c->space[i].period == 1 && c->space[i].step == 1 && c->space[i].x_first == 0 && c->space[i].w_step == 1;
  if (!lined || pixels < 4 * taps || taps > 64) return false;
  return !winograd || (a[3].extent == 3 && a[4].extent == 3 && c->space[0].tap_step == 1 && c->space[1].tap_step == 1);
}

/* Channels and panels of a task: all of them, or parts whose sums stay near. */
static void choose_groups(weights *w, int64_t bytes) {
  int64_t all = divide_up(w->O, w->L), most = w->c->cpu->l2 * 3 / 2;
  w->n_groups = w->n_panel_groups = 1;
  while (w->taps * (w->C / w->n_groups) * (all / w->n_panel_groups) * w->L * bytes > most) {
    int64_t c = w->C / w->n_groups, p = all / w->n_panel_groups, fewer_c = con_nearest_divisor(w->C, w->n_groups + 1), fewer_p = con_nearest_divisor(all, w->n_panel_groups + 1);
    if (w->along == 1 && c >= p * w->L && w->C / fewer_c >= 2 * w->rows) w->n_groups = fewer_c;
    else if (p > 1) w->n_panel_groups = fewer_p;
    else break;
  }
  w->group = w->C / w->n_groups, w->panels = all / w->n_panel_groups;
}

static void choose(weights *w) {
  const cg_cpu *cpu = w->c->cpu;
  int64_t bytes = (int64_t)tt_dtype_size(w->t), given;
  w->lanes = cpu->vector_bytes / bytes;
  w->L = w->O <= w->lanes ? w->lanes : 2 * w->lanes;
  int64_t vectors = w->L / w->lanes, rows = (cpu->n_registers - 1 - vectors) / vectors;
  w->rows = rows < 1 ? 1 : rows > 14 ? 14 : rows;
  choose_groups(w, bytes);
  w->wide = divide_up(w->group, 16) * 16;
  if (w->wide / 16 % 2 == 0) w->wide += 16;            /* an odd number of lines, so that the pixels of a tile fall into all sets of L1 */
  if (w->along > 1) w->wide = w->C / w->along;
  int64_t line = (w->wide + w->panels * w->L) * bytes;
  if (w->winograd) {
    w->tiles_h = divide_up(w->H, 4), w->tiles_w = divide_up(w->W, 4);
    int64_t total = w->N * w->tiles_h * w->tiles_w, most = 64;
    if (con_planned(w->c, "blocks", 0, 1, 1, total, &given)) most = divide_up(total, given);
    w->n_blocks = divide_up(total, most), w->steps = divide_up(total, w->n_blocks);
    w->v_apart = w->steps * w->wide + 16, w->d_apart = w->panels * w->steps * w->L + 16;
    return;
  }
  int64_t most = w->taps == 1 ? 256 : 128, image = w->H * w->W;
  while (most > 64 && most * line > cpu->l2 / 2) most /= 2;
  if (con_planned(w->c, "blocks", 0, 1, 1, w->N * w->H, &given)) most = divide_up(w->N * image, given);
  w->images = image < most ? most / image : 1;
  if (w->images > w->N) w->images = w->N;
  w->images = divide_up(w->N, divide_up(w->N, w->images));
  int64_t lines = w->images > 1 || image <= most ? w->H : most / w->W < 1 ? 1 : most / w->W;
  w->lines = divide_up(w->H, divide_up(w->H, lines));
  w->up = w->R == 1 ? w->lines : (w->lines - 1) * w->stride[0] + w->R;
  w->across = (w->W - 1) * w->apart + w->S * w->along;
  w->n_blocks = divide_up(w->N, w->images) * divide_up(w->H, w->lines), w->steps = w->images * w->lines * w->W;
}

static void begin(weights *w, contraction *c) {
  const ir_node *n = ir_at(c->g, c->row), *x = ir_at(c->g, n->args[0]);
  *w = (weights){.c = c, .lx = c->lx, .k = c->lx->k, .t = c->acc_type, .winograd = ir_int(n, "winograd") && con_weights(c, true), .rank = n->rank, .first = ir_int(n, "split") > 1};
  const axis *a = c->axes + w->first, *sum = c->axes + n->rank;
  w->C = a[0].extent, w->O = a[2].extent, w->R = a[3].extent, w->S = a[4].extent, w->N = sum[0].extent, w->H = sum[1].extent, w->W = sum[2].extent, w->X = x->dim[3], w->Y = x->dim[4];
  w->taps = w->winograd ? POSITIONS : w->R * w->S;
  for (int i = 0; i < 2; i++) w->stride[i] = c->space[i].tap_step;
  w->along = 1, w->apart = w->S == 1 ? 1 : w->stride[1];
  if (pass_window_of(c->g, c->row, &w->see) && w->see.weights) {
    w->along = w->S, w->C *= w->S, w->S = 1;
    if (!w->see.pad || ir_at(c->g, w->see.pad)->region != c->lx->region) w->see.lo[0] = w->see.lo[1] = 0, w->see.size[0] = w->X, w->see.size[1] = w->Y;       /* what it reads exists as it is */
  }
  choose(w);
}

int64_t con_weights_tasks(contraction *c) {
  weights w;
  begin(&w, c);
  return (w.first ? c->axes[0].extent : 1) * w.n_groups * w.n_panel_groups;
}

/* ---- loops ---- */

static void to_end(lp_cursor *at) {
  while (*at->tail) at->tail = &(*at->tail)->next;
}

/* A loop from 0 to n whose body is at *at from now on; its variable. */
static lp_ref loop(weights *w, lp_cursor *at, const char *name, int64_t n, int64_t lanes) {
  if (n == 1 && !lanes) return lp_int(w->k, 0);
  int var = lp_var_add(w->k, name, n);
  lp_for(w->k, at, var, 0, n, (int)lanes, at);
  return lp_var(w->k, var);
}

static lp_ref times(weights *w, lp_ref a, int64_t by, lp_ref b) { return lp_add(w->k, lp_mul(w->k, a, by), b); }

/* The same, of steps of a sum: some at a time, so that there are fewer to predict the last of. */
static lp_ref steps_loop(weights *w, lp_cursor *at, int64_t n) {
  int64_t by = n <= 8 ? n : 4;
  while (n % by) by--;
  lp_ref outer = loop(w, at, "k", n / by, 0);
  int var = lp_var_add(w->k, "j", by);
  lp_for(w->k, at, var, 0, by, 0, at)->unroll = true;
  return times(w, outer, by, lp_var(w->k, var));
}


/* At most `last`. */
static lp_ref within(weights *w, lp_ref e, int64_t last) {
  int64_t lo, hi;
  lp_range(w->k, e, &lo, &hi);
  return hi <= last ? e : lp_op(w->k, IR_min, TT_I64, e, lp_int(w->k, last), 0);
}

static lp_ref x_at(weights *w, lp_ref c, lp_ref n, lp_ref y, lp_ref x) {
  lp_ref at[MAX_AXES];
  memcpy(at, w->at, sizeof at);
  at[w->first] = lp_add(w->k, w->c0, c), at[w->first + 3] = y, at[w->first + 4] = x, at[w->rank] = n;
  return con_operand(w->c, w->lx, A, at);
}

/* 0 outside of the images. */
static lp_ref dy_at(weights *w, lp_ref o, lp_ref n, lp_ref y, lp_ref x, lp_ref inside) {
  lp_ref at[MAX_AXES], axes[3] = {n, y, x}, guard = inside;
  int64_t extent[3] = {w->N, w->H, w->W}, lo, hi;
  memcpy(at, w->at, sizeof at);
  at[w->first + 2] = o;
  for (int i = 0; i < 3; i++) {
    lp_range(w->k, axes[i], &lo, &hi);
    at[w->rank + i] = within(w, axes[i], extent[i] - 1);
    if (hi < extent[i]) continue;
    lp_ref in = lp_op(w->k, IR_lt, TT_BOOL, axes[i], lp_int(w->k, extent[i]), 0);
    guard = guard ? lp_op(w->k, IR_and, TT_BOOL, guard, in, 0) : in;
  }
  lp_ref value = con_operand(w->c, w->lx, B, at);
  return guard ? lp_op(w->k, IR_select, w->t, guard, value, lp_const(w->k, w->t, 0)) : value;
}

static void store(weights *w, lp_cursor *at, int buffer, lp_ref index, lp_ref value) {
  lp_stmt *s = lp_append(w->k, at, LS_STORE);
  s->buffer = buffer, s->index = index, s->value = value;
}

/* fn for the panels of the task, within a loop over those that are full, and for the last when it is not. */
typedef void panel_fn(weights *w, lp_cursor *at, lp_ref panel, int64_t width, const void *user);
static void each_panel(weights *w, lp_cursor *at, panel_fn *fn, const void *user) {
  lp_kernel *k = w->k;
  int64_t full = w->O / w->L, rest = w->O % w->L;
  lp_cursor body = *at;
  lp_ref p = loop(w, &body, "p", w->panels, 0), number = lp_add(k, w->panel0, p);
  for (int part = 0; part < 2; part++) {
    if (part ? !rest : !full) continue;
    lp_cursor inside = body;
    if (rest && full) {
      lp_stmt *s = lp_append(k, &body, LS_IF);
      s->guard = lp_op(k, part ? IR_eq : IR_lt, TT_BOOL, number, lp_int(k, full), 0);
      inside.tail = &s->body;
    }
    fn(w, &inside, p, part ? rest : w->L, user);
  }
  to_end(at);
}

/* The channel that lane l of a panel is; the range says that it exists. */
static lp_ref channel(weights *w, lp_ref panel, int64_t width, lp_ref l) {
  lp_kernel *k = w->k;
  lp_ref number = lp_add(k, w->panel0, panel);
  if (width < w->L) number = lp_int(k, w->O / w->L);
  else if (w->O % w->L) number = within(w, number, w->O / w->L - 1);
  return times(w, number, w->L, l);
}

/* ---- what a block reads, as it is ---- */

typedef struct { lp_ref image, y, x, step; } pixel_place;

static void copy_pixel(weights *w, lp_cursor *at, lp_ref panel, int64_t width, const void *user) {
  const pixel_place *p = user;
  lp_cursor body = *at;
  lp_ref l = loop(w, &body, "l", width, w->L);
  store(w, &body, w->d, times(w, times(w, panel, w->steps, p->step), w->L, l), dy_at(w, channel(w, panel, width, l), p->image, p->y, p->x, 0));
}

/* A line of V: what of it lies in the image, of all channels. first: of V's line. */
static void copy_line(weights *w, lp_cursor *at, lp_ref image, lp_ref line, lp_ref first) {
  lp_kernel *k = w->k;
  const int64_t *lo = w->see.lo, *size = w->see.size;
  int64_t columns = lo[1] + size[1] < w->across ? size[1] : w->across - lo[1];
  if (columns <= 0) return;
  lp_ref y = lp_add(k, line, lp_int(k, -lo[0])), inside = lp_op(k, IR_and, TT_BOOL, lp_op(k, IR_ge, TT_BOOL, y, lp_int(k, 0), 0), lp_op(k, IR_lt, TT_BOOL, y, lp_int(k, size[0]), 0), 0);
  line = lp_op(k, IR_max, TT_I64, lp_op(k, IR_min, TT_I64, line, lp_int(k, lo[0] + size[0] - 1), 0), lp_int(k, lo[0]), 0);            /* itself, with its range known */
  for (int part = 0; part < 2; part++) {
    lp_stmt *s = lp_append(k, at, LS_IF);
    s->guard = part ? lp_op(k, IR_not, TT_BOOL, inside, 0, 0) : inside;
    lp_cursor body = {&s->body};
    lp_ref e = loop(w, &body, "x", columns * w->wide, 4 * w->lanes);
    lp_ref value = part ? lp_const(k, w->t, 0) : x_at(w, lp_mod(k, e, w->wide), image, line, lp_add(k, lp_div(k, e, w->wide), lp_int(k, lo[1])));
    store(w, &body, w->v, lp_add(k, first, lp_add(k, e, lp_int(k, lo[1] * w->wide))), value);
    to_end(at);
  }
}

static void copy_block(weights *w, lp_cursor *at, lp_ref block) {
  lp_kernel *k = w->k;
  int64_t cuts = divide_up(w->H, w->lines);
  lp_ref from_image = lp_mul(k, lp_div(k, block, cuts), w->images), from_line = lp_mul(k, lp_mod(k, block, cuts), w->lines);
  lp_cursor body = *at;
  lp_ref i = loop(w, &body, "i", w->images, 0), y = loop(w, &body, "y", w->up, 0), x = 0;
  lp_ref line = lp_add(k, lp_mul(k, from_line, w->stride[0]), lp_mul(k, y, w->R == 1 ? w->stride[0] : 1)), image = within(w, lp_add(k, from_image, i), w->N - 1);
  if (w->along > 1) copy_line(w, &body, image, line, lp_mul(k, times(w, i, w->up, y), w->across * w->wide));
  else {
    x = loop(w, &body, "x", w->across, 0);
    lp_ref c = loop(w, &body, "c", w->group, w->group % (4 * w->lanes) ? w->lanes : 4 * w->lanes);
    lp_ref value = x_at(w, c, image, within(w, line, w->X - 1), lp_mul(k, x, w->S == 1 ? w->stride[1] : 1));
    store(w, &body, w->v, times(w, times(w, times(w, i, w->up, y), w->across, x), w->wide, c), value);
  }
  to_end(at);
  body = *at;
  i = loop(w, &body, "i", w->images, 0), y = loop(w, &body, "y", w->lines, 0), x = loop(w, &body, "x", w->W, 0);
  pixel_place p = {.image = lp_add(k, from_image, i), .y = lp_add(k, from_line, y), .x = x, .step = times(w, times(w, i, w->lines, y), w->W, x)};
  each_panel(w, &body, copy_pixel, &p);
  to_end(at);
}

/* ---- the same transformed ---- */

static lp_ref keep(weights *w, lp_cursor *at, lp_ref value) { return con_keep(w->k, at, w->t, value); }
static lp_ref scaled(weights *w, lp_cursor *at, double f, lp_ref a, lp_ref b) { return keep(w, at, lp_fma(w->k, lp_const(w->k, w->t, f), a, b)); }
static lp_ref plus(weights *w, lp_cursor *at, ir_op op, lp_ref a, lp_ref b) { return keep(w, at, lp_op(w->k, op, w->t, a, b, 0)); }

/* y[i]: the polynomial with these 4 coefficients at 0, 1, -1, 2, -2 and infinity. */
static void values(weights *w, lp_cursor *at, const lp_ref *x, lp_ref *y) {
  lp_ref even = plus(w, at, IR_add, x[0], x[2]), odd = plus(w, at, IR_add, x[1], x[3]), even2 = scaled(w, at, 4, x[2], x[0]), odd2 = scaled(w, at, 4, x[3], x[1]);
  y[0] = x[0], y[5] = x[3];
  y[1] = plus(w, at, IR_add, even, odd), y[2] = plus(w, at, IR_sub, even, odd);
  y[3] = scaled(w, at, 2, odd2, even2), y[4] = scaled(w, at, -2, odd2, even2);
}

typedef struct { lp_ref t, image, y, x, inside; } tile_place;

static lp_ref position_at(weights *w, int64_t apart, lp_ref i, lp_ref j, lp_ref rest) {
  return lp_add(w->k, times(w, i, SIDE * apart, lp_mul(w->k, j, apart)), rest);
}

/* As in winograd.c, a transform is two passes, each a loop. What lies between them stands in L1 where all vectors are whole; else where the results will,
 * some of which come from beyond L2. `lane` counts n of them. */
typedef struct { int buffer; int64_t apart; bool own; lp_ref lane, rest; } between;
static lp_ref lanes_loop(weights *w, lp_cursor *at, int64_t n, between *b) {
  b->own = n % w->lanes == 0;
  if (!b->own) return b->lane = loop(w, at, "l", n, w->lanes);
  lp_ref vector = loop(w, at, "v", n / w->lanes, 0);
  b->lane = loop(w, at, "l", w->lanes, w->lanes);
  return times(w, vector, w->lanes, b->lane);
}
static void between_at(weights *w, between *b, int buffer, int64_t apart, lp_ref rest) {
  b->buffer = b->own ? w->mid : buffer, b->apart = b->own ? w->lanes : apart, b->rest = b->own ? b->lane : rest;
}

static void transform_dy(weights *w, lp_cursor *at, lp_ref panel, int64_t width, const void *user) {
  const tile_place *p = user;
  lp_kernel *k = w->k;
  lp_ref in[4], out[SIDE];
  lp_cursor body = *at;
  between b;
  lp_ref l = lanes_loop(w, &body, width, &b), o = channel(w, panel, width, l), rest = times(w, times(w, panel, w->steps, p->t), w->L, l);
  between_at(w, &b, w->d, w->d_apart, rest);
  for (int columns = 0; columns < 2; columns++) {
    lp_cursor inside = body;
    lp_ref side = loop(w, &inside, "i", columns ? SIDE : 4, 0);
    for (int i = 0; i < 4; i++)
      in[i] = keep(w, &inside, columns ? lp_load(k, b.buffer, position_at(w, b.apart, lp_int(k, i), side, b.rest), 0, 0) : dy_at(w, o, p->image, lp_add(k, p->y, side), lp_add(k, p->x, lp_int(k, i)), p->inside));
    values(w, &inside, in, out);
    for (int i = 0; i < SIDE; i++) store(w, &inside, columns ? w->d : b.buffer, columns ? position_at(w, w->d_apart, lp_int(k, i), side, rest) : position_at(w, b.apart, side, lp_int(k, i), b.rest), out[i]);
    to_end(&body);
  }
}

static void transform_x(weights *w, lp_cursor *at, const tile_place *p) {
  lp_kernel *k = w->k;
  lp_ref in[SIDE], out[SIDE];
  lp_cursor body = *at;
  between b;
  lp_ref c = lanes_loop(w, &body, w->group, &b), rest = times(w, p->t, w->wide, c);
  between_at(w, &b, w->v, w->v_apart, rest);
  for (int columns = 0; columns < 2; columns++) {
    lp_cursor inside = body;
    lp_ref side = loop(w, &inside, "i", SIDE, 0);
    for (int i = 0; i < SIDE; i++)
      in[i] = keep(w, &inside, columns ? lp_load(k, b.buffer, position_at(w, b.apart, lp_int(k, i), side, b.rest), 0, 0) : x_at(w, c, p->image, within(w, lp_add(k, p->y, side), w->X - 1), within(w, lp_add(k, p->x, lp_int(k, i)), w->Y - 1)));
    con_winograd_input(k, &inside, w->t, 4, in, out);
    for (int i = 0; i < SIDE; i++) store(w, &inside, columns ? w->v : b.buffer, columns ? position_at(w, w->v_apart, lp_int(k, i), side, rest) : position_at(w, b.apart, side, lp_int(k, i), b.rest), out[i]);
    to_end(&body);
  }
  to_end(at);
}

static void transform_block(weights *w, lp_cursor *at, lp_ref block) {
  lp_kernel *k = w->k;
  int64_t total = w->N * w->tiles_h * w->tiles_w;
  lp_cursor body = *at;
  lp_ref t = loop(w, &body, "t", w->steps, 0), number = times(w, block, w->steps, t), real = within(w, number, total - 1);
  tile_place p = {.t = t, .image = lp_div(k, real, w->tiles_h * w->tiles_w)};
  p.y = lp_mul(k, lp_mod(k, lp_div(k, real, w->tiles_w), w->tiles_h), 4), p.x = lp_mul(k, lp_mod(k, real, w->tiles_w), 4);
  if (real != number) p.inside = lp_op(k, IR_lt, TT_BOOL, number, lp_int(k, total), 0);
  transform_x(w, &body, &p);
  each_panel(w, &body, transform_dy, &p);
  to_end(at);
}

/* ---- products ---- */

/* What the next block reads, for the share of one of n register tiles, so that memory works while products are made: about that block's pixels, in order. */
static void ask_for_next(weights *w, lp_cursor *at, lp_ref block, lp_ref number, int64_t n) {
  lp_kernel *k = w->k;
  int64_t pixels = w->steps * (w->winograd ? 16 : 1), each = divide_up(pixels, n), line = 64 / (int64_t)tt_dtype_size(w->t), image = w->H * w->W;
  lp_cursor body = *at;
  lp_ref q = loop(w, &body, "n", each, 0);
  lp_ref pixel = within(w, lp_add(k, lp_mul(k, lp_add(k, block, lp_int(k, 1)), pixels), times(w, number, each, q)), w->N * image - 1);
  lp_ref i = lp_div(k, pixel, image), y = lp_div(k, lp_mod(k, pixel, image), w->W), x = lp_mod(k, pixel, w->W);
  for (int side = 0; side < 2; side++)
    for (int64_t c = 0; c < (side ? w->panels * w->L : w->along > 1 ? 0 : w->group); c += line) {
      lp_ref o = within(w, lp_add(k, lp_mul(k, w->panel0, w->L), lp_int(k, c)), w->O - 1);
      lp_ref e = side ? dy_at(w, o, i, y, x, 0) : x_at(w, lp_int(k, c), i, lp_mul(k, y, w->stride[0]), lp_mul(k, x, w->stride[1]));
      if (k->exprs[e].kind != LX_LOAD) continue;
      lp_stmt *s = lp_append(k, &body, LS_PREFETCH);
      s->op = 2, s->buffer = (int)k->exprs[e].imm, s->index = k->exprs[e].a[0];
    }
  to_end(at);
}

/* n register tiles of `rows` channels, from channel `from` on, at a tap (r, s) or position r. */
static void product_tiles(weights *w, lp_cursor *at, lp_ref block, lp_ref panel, lp_ref position, int64_t from, int64_t n, int64_t rows, int64_t tiles) {
  if (n <= 0 || rows <= 0) return;
  lp_kernel *k = w->k;
  lp_cursor body = *at;
  lp_ref tile = loop(w, &body, "r", n, 0), c = times(w, tile, rows, lp_int(k, from)), number = lp_add(k, lp_mul(k, panel, tiles), lp_add(k, tile, lp_int(k, from ? tiles - n : 0))), tap = position, at_tap = 0, pixel, step, v_from = lp_int(k, 0), d_from = v_from;
  if (w->winograd) number = times(w, position, w->panels * tiles, number);
  if (w->n_blocks > 1) ask_for_next(w, &body, block, number, (w->winograd ? POSITIONS : 1) * w->panels * tiles);
  if (!w->winograd) {
    lp_ref r = loop(w, &body, "y", w->R, 0), s = loop(w, &body, "x", w->S, 0);
    tap = times(w, r, w->S, s), at_tap = times(w, r, w->across, s);
  }
  int acc = lp_local_add(k, "acc", w->t, (int)rows), d = lp_local_add(k, "d", w->t, 1);
  lp_ref l = loop(w, &body, "l", w->L, w->L);
  lp_stmt *s = lp_append(k, &body, LS_LOCAL);
  s->local = acc, s->value = lp_const(k, w->t, 0);
  lp_cursor inside = body;
  if (w->winograd) {
    pixel = loop(w, &inside, "t", w->steps, 0);
    step = times(w, panel, w->steps, pixel);
    v_from = lp_mul(k, position, w->v_apart), d_from = lp_mul(k, position, w->d_apart);
  } else if (w->R == 1 && w->S * w->along == 1) {
    step = pixel = steps_loop(w, &inside, w->steps);
    step = times(w, panel, w->steps, step);
  } else {
    lp_ref i = loop(w, &inside, "i", w->images, 0), y = loop(w, &inside, "y", w->lines, 0), x = steps_loop(w, &inside, w->W);
    step = times(w, panel, w->steps, times(w, times(w, i, w->lines, y), w->W, x));
    pixel = lp_add(k, at_tap, times(w, times(w, i, w->up, lp_mul(k, y, w->R == 1 ? 1 : w->stride[0])), w->across, lp_mul(k, x, w->apart)));
  }
  s = lp_append(k, &inside, LS_LOCAL);
  s->local = d, s->value = lp_load(k, w->d, lp_add(k, d_from, times(w, step, w->L, l)), 0, 0);
  for (int64_t i = 0; i < rows; i++) {
    s = lp_append(k, &inside, LS_SET);
    s->local = acc, s->index = lp_int(k, i);
    s->value = lp_fma(k, lp_load(k, w->v, lp_add(k, v_from, times(w, pixel, w->wide, lp_add(k, c, lp_int(k, i)))), 0, 0), lp_get(k, d, 0), lp_get(k, acc, s->index));
  }
  to_end(&body);
  for (int64_t i = 0; i < rows; i++) {
    lp_ref to = times(w, times(w, times(w, tap, w->panels, panel), w->group, lp_add(k, c, lp_int(k, i))), w->L, l);
    store(w, &body, w->m, to, lp_op(k, IR_add, w->t, lp_load(k, w->m, to, 0, 0), lp_get(k, acc, lp_int(k, i)), 0));
  }
  to_end(at);
}

static void products(weights *w, lp_cursor *at, lp_ref block) {
  lp_cursor body = *at;
  lp_ref position = w->winograd ? loop(w, &body, "q", POSITIONS, 0) : 0, panel = loop(w, &body, "p", w->panels, 0);
  int64_t tiles = divide_up(w->group, w->rows), rows = divide_up(w->group, tiles), low = tiles * rows - w->group, high = tiles - low;      /* balanced: `low` have a row less */
  product_tiles(w, &body, block, panel, position, 0, high, rows, tiles);
  product_tiles(w, &body, block, panel, position, high * rows, low, rows - 1, tiles);
  to_end(at);
}

/* ---- results ---- */

/* The 3x3 results of c and l stand in M where the first 9 of their 36 sums stood. */
static void transform_results(weights *w, lp_cursor *at) {
  static const double A_F[3][SIDE] = {{1. / 4, -1. / 6, -1. / 6, 1. / 24, 1. / 24, 0}, {0, -1. / 6, 1. / 6, 1. / 12, -1. / 12, 0}, {0, -1. / 6, -1. / 6, 1. / 6, 1. / 6, 1}};
  lp_kernel *k = w->k;
  lp_cursor body = *at;
  lp_ref in[SIDE], out[3];
  int64_t apart = w->panels * w->group * w->L;
  between b;                                          /* always whole vectors: L is */
  lp_ref l = lanes_loop(w, &body, apart, &b);
  between_at(w, &b, w->m, apart, l);
  for (int rows = 0; rows < 2; rows++) {
    lp_cursor inside = body;
    lp_ref side = loop(w, &inside, "i", rows ? 3 : SIDE, 0);
    for (int i = 0; i < SIDE; i++) in[i] = keep(w, &inside, rows ? lp_load(k, b.buffer, position_at(w, b.apart, side, lp_int(k, i), b.rest), 0, 0) : lp_load(k, w->m, position_at(w, apart, lp_int(k, i), side, l), 0, 0));
    for (int r = 0; r < 3; r++) {
      out[r] = 0;
      for (int i = 0; i < SIDE; i++)
        if (A_F[r][i]) out[r] = out[r] ? scaled(w, &inside, A_F[r][i], in[i], out[r]) : keep(w, &inside, lp_op(k, IR_mul, w->t, in[i], lp_const(k, w->t, A_F[r][i]), 0));
    }
    for (int r = 0; r < 3; r++) store(w, &inside, rows ? w->m : b.buffer, rows ? times(w, side, 3 * apart, lp_add(k, lp_int(k, r * apart), l)) : position_at(w, b.apart, lp_int(k, r), side, b.rest), out[r]);
    to_end(&body);
  }
  to_end(at);
}

static void store_panel(weights *w, lp_cursor *at, lp_ref panel, int64_t width, const void *user) {
  (void)user;
  lp_kernel *k = w->k;
  lp_ref axes[MAX_AXES], index[TT_MAX_RANK];
  lp_cursor body = *at;
  memcpy(axes, w->at, sizeof axes);
  lp_ref c = loop(w, &body, "c", w->group, 0), r = loop(w, &body, "r", w->R, 0), s = loop(w, &body, "s", w->S, 0), l = loop(w, &body, "l", width, w->L);
  axes[w->first] = w->along > 1 ? lp_mod(k, c, w->wide) : lp_add(k, w->c0, c), axes[w->first + 2] = channel(w, panel, width, l), axes[w->first + 3] = r, axes[w->first + 4] = w->along > 1 ? lp_div(k, c, w->wide) : s;
  con_result_at(w->c, k, axes, index);
  con_store(w->lx, w->c->row, &body, index, lp_load(k, w->m, times(w, times(w, times(w, times(w, r, w->S, s), w->panels, panel), w->group, c), w->L, l), 0, 0));
}

static void zero(weights *w, lp_cursor *at, int buffer, int64_t n) {
  lp_cursor body = *at;
  lp_ref i = loop(w, &body, "z", n, w->L);
  store(w, &body, buffer, i, lp_const(w->k, w->t, 0));
  to_end(at);
}

void con_weights_build(contraction *c) {
  weights w;
  begin(&w, c);
  lp_kernel *k = w.k;
  int64_t pixels = w.winograd ? POSITIONS * w.v_apart : w.images * w.up * w.across * w.wide, places = w.winograd ? POSITIONS * w.d_apart : w.panels * w.steps * w.L, sums = w.taps * w.panels * w.group * w.L;
  w.v = lp_buffer_add(k, "V", w.t, pixels, true, true);
  w.d = lp_buffer_add(k, "D", w.t, places, true, true);
  w.m = lp_buffer_add(k, "M", w.t, sums, true, true);
  if (w.winograd) w.mid = lp_buffer_add(k, "mid", w.t, POSITIONS * w.lanes, true, true);
  for (int i = 0; i < c->n_axes; i++) w.at[i] = lp_int(k, 0);
  if (w.first) w.at[0] = lp_div(k, c->task, w.n_groups * w.n_panel_groups);
  w.c0 = lp_mul(k, lp_mod(k, lp_div(k, c->task, w.n_panel_groups), w.n_groups), w.group);
  w.panel0 = lp_mul(k, lp_mod(k, c->task, w.n_panel_groups), w.panels);
  lp_cursor body = c->body, inside;
  zero(&w, &body, w.m, sums);
  if (w.O % w.L) zero(&w, &body, w.d, places);
  if (w.along > 1) zero(&w, &body, w.v, pixels);
  inside = body;
  lp_ref block = loop(&w, &inside, "b", w.n_blocks, 0);
  if (w.winograd) transform_block(&w, &inside, block);
  else copy_block(&w, &inside, block);
  products(&w, &inside, block);
  to_end(&body);
  if (w.winograd) transform_results(&w, &body);
  each_panel(&w, &body, store_panel, NULL);
}
