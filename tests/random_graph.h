/* random_graph.h: random graphs, valid by construction. Inputs are small whole numbers; each value remembers whether it is still exact (whole,
 * below 2^20) or rounded. Ops with jumps (floor, comparisons, argmax, integer casts) read exact values only, and values that grow are
 * squashed, so that two right implementations agree to a small relative error on every graph. */
#ifndef TT_RANDOM_GRAPH_H
#define TT_RANDOM_GRAPH_H

#include <stdlib.h>
#include <string.h>

#include "ir/ir.h"

typedef struct { ir_ref ref; double bound; bool exact; } random_value;
typedef struct {
  ir_graph *g;
  uint64_t state;
  random_value values[64];
  int n, n_inputs;
} random_graph;

static uint32_t random_below(random_graph *r, uint32_t n) {
  r->state = r->state * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)((r->state >> 33) % n);
}

static void random_keep(random_graph *r, ir_ref ref, double bound, bool exact) {
  if (!ref || r->n == 64) return;
  tt_shape s = ir_shape(r->g, ref);
  if (tt_shape_count(&s) > 20000) return;
  if (ir_at(r->g, ref)->dtype == TT_F32 && bound > 1e4) {
    ref = ir_ew1(r->g, IR_tanh, ir_ew2(r->g, IR_mul, ref, ir_like(r->g, ref, 1 / bound)));
    bound = 1, exact = false;
  }
  r->values[r->n++] = (random_value){ref, bound, exact && bound < (1 << 20)};
}

static random_value *random_pick(random_graph *r, tt_dtype t, bool exact) {
  for (int tries = 0; tries < 40; tries++) {
    random_value *v = &r->values[random_below(r, (uint32_t)r->n)];
    if (ir_at(r->g, v->ref)->dtype == t && (v->exact || !exact)) return v;
  }
  return NULL;
}

static void random_input(random_graph *r, tt_dtype t) {
  static const char *const names[] = {"a", "b", "c", "d", "e", "f", "h", "i"};
  static const int64_t dims[] = {1, 2, 3, 4, 5, 7, 8, 16, 17, 33};
  tt_shape s = {.rank = (int)random_below(r, 5)};
  for (int i = 0; i < s.rank; i++) s.dim[i] = dims[random_below(r, s.rank > 3 ? 6 : 10)];
  random_keep(r, ir_input(r->g, names[r->n_inputs++], t, s), 4, true);
}

/* A value that broadcasts with v: an own new slice of it, or a new input of some of its dimensions. */
static random_value *random_partner(random_graph *r, const random_value *v, bool exact) {
  tt_shape s = ir_shape(r->g, v->ref);
  tt_dtype t = ir_at(r->g, v->ref)->dtype;
  for (int i = 0; i < r->n; i++) {
    random_value *w = &r->values[random_below(r, (uint32_t)r->n)];
    tt_shape z = ir_shape(r->g, w->ref);
    bool fits = ir_at(r->g, w->ref)->dtype == t && z.rank <= s.rank && (w->exact || !exact);
    for (int d = 0; fits && d < z.rank; d++) fits = z.dim[z.rank - 1 - d] == s.dim[s.rank - 1 - d] || z.dim[z.rank - 1 - d] == 1;
    if (fits) return w;
  }
  return NULL;
}

static void random_step(random_graph *r) {
  ir_graph *g = r->g;
  random_value *v = random_pick(r, random_below(r, 6) ? TT_F32 : TT_I32, false), *w;
  if (!v) return;
  random_value x = *v;
  tt_shape s = ir_shape(g, x.ref);
  bool real = ir_at(g, x.ref)->dtype == TT_F32;
  int axis = s.rank ? (int)random_below(r, (uint32_t)s.rank) : 0;
  switch (random_below(r, 30)) {
    case 0: case 1:
      if ((w = random_partner(r, &x, false))) random_keep(r, ir_ew2(g, random_below(r, 2) ? IR_add : IR_sub, x.ref, w->ref), x.bound + w->bound, x.exact && w->exact);
      break;
    case 2: case 3:
      if ((w = random_partner(r, &x, false)) && (real || x.bound * w->bound < 1e6)) random_keep(r, ir_ew2(g, IR_mul, x.ref, w->ref), x.bound * w->bound, x.exact && w->exact);
      break;
    case 4:
      if ((w = random_partner(r, &x, false))) random_keep(r, ir_ew2(g, random_below(r, 2) ? IR_max : IR_min, x.ref, w->ref), x.bound > w->bound ? x.bound : w->bound, x.exact && w->exact);
      break;
    case 5: {
      static const ir_op smooth[] = {IR_tanh, IR_sigmoid, IR_sin, IR_cos, IR_erf, IR_atan};
      if (real) random_keep(r, ir_ew1(g, smooth[random_below(r, 6)], x.ref), 2, false);
      break;
    }
    case 6:
      if (real && x.bound < 8) random_keep(r, ir_ew1(g, IR_exp, x.ref), 3000, false);
      break;
    case 7: random_keep(r, ir_ew1(g, random_below(r, 2) ? IR_relu : IR_neg, x.ref), x.bound, x.exact); break;
    case 8:
      if (real) random_keep(r, ir_ew2(g, IR_div, x.ref, ir_ew2(g, IR_add, ir_ew1(g, IR_abs, x.ref), ir_like(g, x.ref, 1))), 1, false);
      break;
    case 9:
      if (x.exact) random_keep(r, ir_ew2(g, random_below(r, 2) ? IR_lt : IR_eq, x.ref, ir_like(g, x.ref, 1)), 1, true);
      break;
    case 10: {
      random_value *c = random_pick(r, TT_BOOL, true);
      if (c && real) {
        tt_shape cs = ir_shape(g, c->ref);
        if (tt_shape_equal(&cs, &s)) random_keep(r, ir_select(g, c->ref, x.ref, ir_like(g, x.ref, 0.5)), x.bound, false);
      }
      break;
    }
    case 11: random_keep(r, ir_cast(g, x.ref, real ? TT_F64 : TT_F32), x.bound, x.exact); break;
    case 12: {
      int perm[TT_MAX_RANK];
      for (int i = 0; i < s.rank; i++) perm[i] = i;
      for (int i = s.rank - 1; i > 0; i--) {
        int k = (int)random_below(r, (uint32_t)i + 1), t = perm[i];
        perm[i] = perm[k], perm[k] = t;
      }
      random_keep(r, ir_permute(g, x.ref, perm), x.bound, x.exact);
      break;
    }
    case 13: {
      tt_shape z = {.rank = 1, .dim = {tt_shape_count(&s)}};
      if (s.rank > 1 && random_below(r, 2)) {
        z = s;
        z.dim[s.rank - 2] *= z.dim[s.rank - 1], z.rank--;
      }
      random_keep(r, ir_reshape(g, x.ref, z), x.bound, x.exact);
      break;
    }
    case 14:
      if (s.rank && s.dim[axis] > 1) {
        int64_t start = random_below(r, (uint32_t)s.dim[axis]), step = 1 + random_below(r, 2);
        random_keep(r, ir_slice_axis(g, x.ref, axis, start, s.dim[axis], step), x.bound, x.exact);
      }
      break;
    case 15: {
      int64_t lo[TT_MAX_RANK] = {0}, hi[TT_MAX_RANK] = {0}, interior[TT_MAX_RANK] = {0};
      for (int i = 0; i < s.rank; i++) lo[i] = random_below(r, 2), hi[i] = random_below(r, 2), interior[i] = random_below(r, 5) == 0;
      if (s.rank) random_keep(r, ir_pad(g, x.ref, ir_like(g, x.ref, 1), lo, hi, interior), x.bound > 1 ? x.bound : 1, x.exact);
      break;
    }
    case 16:
      if (s.rank) random_keep(r, ir_reverse(g, x.ref, &axis, 1), x.bound, x.exact);
      break;
    case 17:
      if (s.rank) random_keep(r, ir_concat(g, (ir_ref[]){x.ref, ir_ew1(g, IR_neg, x.ref)}, 2, axis), x.bound, x.exact);
      break;
    case 18: case 19:
      if (s.rank) random_keep(r, ir_reduce(g, IR_sum, x.ref, &axis, 1, random_below(r, 2)), x.bound * (double)s.dim[axis], x.exact);
      break;
    case 20:
      if (s.rank) random_keep(r, ir_reduce(g, random_below(r, 2) ? IR_amax : IR_amin, x.ref, &axis, 1, false), x.bound, x.exact);
      break;
    case 21:
      if (s.rank && x.exact) random_keep(r, ir_cast(g, ir_arg(g, random_below(r, 2) ? IR_argmax : IR_argmin, x.ref, axis), TT_I32), (double)s.dim[axis], true);
      break;
    case 22:
      if (s.rank) random_keep(r, ir_cumsum(g, x.ref, axis, random_below(r, 2), random_below(r, 2)), x.bound * (double)s.dim[axis], x.exact);
      break;
    case 23:
      if (real && s.rank) random_keep(r, ir_softmax(g, random_below(r, 2) ? IR_softmax : IR_log_softmax, x.ref, axis), 30, false);
      break;
    case 24: case 25:                                  /* x times its own transpose, or a weight */
      if (real && s.rank >= 2 && x.bound < 100)
        random_keep(r, ir_matmul(g, x.ref, ir_ew1(g, IR_relu, x.ref), false, true, 1), x.bound * x.bound * (double)s.dim[s.rank - 1], x.exact);
      break;
    case 26:
      if (s.rank && s.dim[axis] >= 3) {
        int64_t size = 2 + random_below(r, 2), stride = 1 + random_below(r, 2);
        ir_ref u = ir_unfold(g, x.ref, axis, size, stride, 1);
        if (random_below(r, 2)) random_keep(r, u, x.bound, x.exact);
        else random_keep(r, ir_fold(g, u, axis, s.dim[axis], stride, 1), x.bound * 3, x.exact);
      }
      break;
    case 27:
      if (s.rank && (w = random_pick(r, TT_I32, true))) {
        tt_shape z = ir_shape(g, w->ref);
        bool fits = z.rank == s.rank;
        for (int i = 0; fits && i < s.rank; i++) fits = i == axis || z.dim[i] == s.dim[i];
        if (fits) random_keep(r, ir_gather(g, x.ref, w->ref, axis), x.bound, x.exact);
      }
      break;
    case 28:                                           /* a convolution of x with a slice of itself */
      if (real && s.rank == 4 && s.dim[2] >= 3 && s.dim[3] >= 3 && x.bound < 50) {
        ir_ref image = ir_reshape(g, x.ref, (tt_shape){.rank = 5, .dim = {s.dim[0], 1, s.dim[1], s.dim[2], s.dim[3]}});
        ir_ref w5 = ir_slice_axis(g, ir_slice_axis(g, ir_transpose(g, image, 0, 1), 3, 0, 3, 1), 4, 0, 3, 1);
        ir_conv_attrs a = {.stride = {1 + random_below(r, 2), 1}, .lo = {1, 1}, .hi = {1, random_below(r, 2)}};
        ir_ref y = ir_conv(g, image, w5, &a);
        tt_shape z = ir_shape(g, y);
        random_keep(r, ir_reshape(g, y, (tt_shape){.rank = 4, .dim = {z.dim[0], z.dim[2], z.dim[3], z.dim[4]}}), x.bound * x.bound * (double)s.dim[1] * 9, x.exact);
      }
      break;
    default:
      if (real && s.rank) random_keep(r, ir_ew2(g, IR_sub, x.ref, ir_mean(g, x.ref, &axis, 1, true)), 2 * x.bound, false);
  }
}

/* Graph number `seed`: 2 to 4 inputs, about `steps` ops, up to 4 outputs. */
__attribute__((unused)) static ir_graph *random_graph_new(uint64_t seed, int steps) {
  random_graph r = {.g = ir_graph_new("random"), .state = seed * 0x9E3779B97F4A7C15u + 1};
  int inputs = 2 + (int)random_below(&r, 3);
  for (int i = 0; i < inputs; i++) random_input(&r, i == 1 ? TT_I32 : TT_F32);
  for (int i = 0; i < steps; i++) random_step(&r);
  for (int i = 0; i < 4 && i < r.n; i++) {
    char name[8] = {'y', (char)('0' + i)};
    ir_output_add(r.g, name, r.values[i == 0 ? r.n - 1 : (int)random_below(&r, (uint32_t)r.n)].ref);
  }
  return r.g;
}

#endif
