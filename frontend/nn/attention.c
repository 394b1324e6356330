/* attention.c: rows that attend to rows. */
#include "../frontend.h"

static tt_val attention(tt_here here, const char *op, tt_val q, tt_val k, tt_val v, tt_attention_options o, bool naive) {
  OPEN(op, here, q, k, v);
  int rank = tt_rank(q);
  tt_shape s = tt_shape_of(q), ks = tt_shape_of(k), vs = tt_shape_of(v);
  if (rank < 2 || ks.rank != rank || vs.rank != rank || tt_dim(q, -1) != tt_dim(k, -1) || tt_dim(k, -2) != tt_dim(v, -2))
    WRONG("give q [..., T, d], k [..., S, d], v [..., S, e]", "the shapes do not fit");
  if (!tt_dtype_in(tt_dtype_of(q), TT_REAL)) WRONG("use tt_cast to make them f32", "it takes real numbers, not %s", tt_dtype_name(tt_dtype_of(q)));
  for (int i = 0; i < rank - 2; i++) {
    bool heads = i == rank - 3;
    if (ks.dim[i] != vs.dim[i] || (ks.dim[i] != s.dim[i] && !(heads && ks.dim[i] > 0 && s.dim[i] % ks.dim[i] == 0)))
      WRONG(heads ? "the heads of q are a multiple of those of k and v" : "leading axes must be equal", "axis %d is %lld, %lld and %lld", i, (long long)s.dim[i], (long long)ks.dim[i], (long long)vs.dim[i]);
  }
  ir_attention_options to = {.scale = o.scale == 0 ? 1 / sqrt((double)tt_dim(q, -1)) : o.scale, .causal = o.causal};
  if (trace_is(o.mask)) {
    tt_shape m = tt_shape_of(o.mask), wide = {.rank = rank};
    if (m.rank > rank) WRONG("make it broadcast to [..., T, S]", "the mask has more axes than the scores");
    for (int i = 0; i < rank; i++) wide.dim[i] = i < rank - m.rank ? 1 : m.dim[i - (rank - m.rank)];
    to.mask = tt_reshape(o.mask, wide).ref;
  }
  if (trace_is(o.length)) {
    if (tt_rank(o.length) != 0 || !tt_dtype_in(tt_dtype_of(o.length), TT_INT)) WRONG("give one integer, of rank 0", "the live length is of type %s and rank %d", tt_dtype_name(tt_dtype_of(o.length)), tt_rank(o.length));
    to.length = tt_cast(o.length, TT_I64).ref;
  }
  ir_ref args[3] = {q.ref, k.ref, v.ref};
  DONE(naive ? pass_attention_naive(g, IR_attention, args, &to) : ir_attention(g, IR_attention, args, &to));
}

tt_val tt_f_attention_at(tt_here here, tt_val q, tt_val k, tt_val v, tt_attention_options o) { return attention(here, "attention", q, k, v, o, false); }
tt_val tt_f_attention_naive_at(tt_here here, tt_val q, tt_val k, tt_val v, tt_attention_options o) { return attention(here, "attention_naive", q, k, v, o, true); }

/* [B,T,heads*d] -> [B,heads,T,d] */
static tt_val to_heads(tt_val x, int64_t heads) {
  return tt_permute(tt_reshape(x, TT_SHAPE(tt_dim(x, 0), tt_dim(x, 1), heads, tt_dim(x, 2) / heads)), TT_AXES(0, 2, 1, 3));
}

tt_val tt_f_multi_head_attention_at(tt_here here, tt_val x, tt_val y, tt_val w_in, tt_val b_in, tt_val w_out, tt_val b_out, int64_t heads, tt_attention_options o) {
  OPEN("multi_head_attention", here, x, y, w_in, w_out);
  if (tt_rank(x) != 3 || tt_rank(y) != 3 || tt_dim(x, 0) != tt_dim(y, 0) || tt_dim(x, 2) != tt_dim(y, 2)) WRONG("give x [B, T, E] and y [B, S, E]", "the shapes do not fit");
  int64_t e = tt_dim(x, 2);
  if (heads < 1 || e % heads) WRONG("the features are split among the heads", "%lld heads do not divide %lld features", (long long)heads, (long long)e);
  if (tt_rank(w_in) != 2 || tt_dim(w_in, 0) != 3 * e || tt_dim(w_in, 1) != e) WRONG("it holds the weights of q, k and v, one below the other", "w_in must be [%lld,%lld]", (long long)(3 * e), (long long)e);
  tt_val part[3], none = {0};
  if (x.ref == y.ref) {
    tt_split(tt_f_linear(x, w_in, b_in), 3, 2, part);
  } else {
    for (int i = 0; i < 3; i++)
      part[i] = tt_f_linear(i ? y : x, tt_slice(w_in, 0, i * e, (i + 1) * e, 1), trace_is(b_in) ? tt_slice(b_in, 0, i * e, (i + 1) * e, 1) : none);
  }
  for (int i = 0; i < 3; i++) part[i] = to_heads(part[i], heads);
  tt_val seen = tt_permute(tt_f_attention_at(here, part[0], part[1], part[2], o), TT_AXES(0, 2, 1, 3));
  return tt_f_linear(tt_reshape(seen, tt_shape_of(x)), w_out, b_out);
}

tt_val tt_multi_head_attention_at(tt_here here, tt_val x, tt_val y, const char *name, int64_t heads, tt_attention_options o) {
  OPEN("multi_head_attention", here, x, y);
  if (tt_rank(x) != 3) WRONG("give [B, T, E]", "%s takes rank 3, not %d", name, tt_rank(x));
  int64_t e = tt_dim(x, 2);
  double bound = 1 / sqrt((double)e);
  tt_scope_push(x, name);
  tt_val w = tt_param(x, "in_proj_weight", TT_SHAPE(3 * e, e), tt_init_xavier_uniform(1)), b = {0}, c = {0};
  if (!o.no_bias) b = tt_param(x, "in_proj_bias", TT_SHAPE(3 * e), tt_init_zeros());
  tt_scope_push(x, "out_proj");
  tt_val out = tt_param(x, "weight", TT_SHAPE(e, e), tt_init_uniform(-bound, bound));
  if (!o.no_bias) c = tt_param(x, "bias", TT_SHAPE(e), tt_init_zeros());
  tt_scope_pop(x);
  tt_val z = tt_f_multi_head_attention_at(here, x, y, w, b, out, c, heads, o);
  tt_scope_pop(x);
  return z;
}

tt_val tt_self_attention_at(tt_here here, tt_val x, const char *name, int64_t d) {
  OPEN("self_attention", here, x);
  if (tt_rank(x) != 2 && tt_rank(x) != 3)
    WRONG("give [T, in] or [B, T, in]; images need tt_flatten(x, 1) first", "%s takes rank 2 or 3, not %d", name, tt_rank(x));
  tt_scope_push(x, name);
  tt_val q = tt_linear(x, "q", d), k = tt_linear(x, "k", d), v = tt_linear(x, "v", d);
  tt_val y = tt_linear(tt_f_attention(q, k, v), "out", d);
  tt_scope_pop(x);
  return y;
}

/* cos or sin of the angles, [T,1,D/2]: of known positions a table, of others computed, both in f64. */
static tt_val angles(tt_call *c, tt_val x, const tt_rotary_options *o, bool sine) {
  int64_t rows = tt_dim(x, 1), half = tt_dim(x, 3) / 2;
  bool given = trace_is(o->positions);
  double *table = malloc((size_t)((given ? 1 : rows) * half) * sizeof *table);
  if (!table) return trace_wrong(c, "use fewer positions", "no memory for %lld x %lld angles", (long long)rows, (long long)half);
  for (int64_t t = 0; t < (given ? 1 : rows); t++)
    for (int64_t i = 0; i < half; i++) {
      double turn = pow(o->base, -2.0 * (double)i / (double)(2 * half)), angle = (double)t * turn;
      table[t * half + i] = given ? turn : sine ? sin(angle) : cos(angle);
    }
  tt_val y = tt_constant(c->t, TT_F64, given ? TT_SHAPE(1, half) : TT_SHAPE(rows, half), table);
  free(table);
  if (given) {
    y = tt_mul(tt_unsqueeze(tt_cast(o->positions, TT_F64), 1), y);
    y = sine ? tt_sin(y) : tt_cos(y);
  }
  return tt_cast(tt_unsqueeze(y, 1), tt_dtype_of(x));
}

tt_val tt_rotary_embedding_at(tt_here here, tt_val x, tt_rotary_options o) {
  OPEN("rotary_embedding", here, x);
  if (tt_rank(x) != 4 || tt_dim(x, 3) % 2 || tt_dim(x, 3) < 2 || tt_dim(x, 1) < 1) WRONG("give [B, T, H, D] with an even D", "the shape does not fit");
  if (!tt_dtype_in(tt_dtype_of(x), TT_REAL)) WRONG("use tt_cast to make it f32", "it takes real numbers, not %s", tt_dtype_name(tt_dtype_of(x)));
  if (trace_is(o.positions) && (tt_rank(o.positions) != 1 || tt_dim(o.positions, 0) != tt_dim(x, 1) || !tt_dtype_in(tt_dtype_of(o.positions), TT_INT)))
    WRONG("give one integer a row of x", "the positions must be integers [%lld]", (long long)tt_dim(x, 1));
  if (o.base == 0) o.base = 10000;
  if (!(o.base > 0)) WRONG("10000 is usual", "the base is %g", o.base);
  tt_val a, b, c = angles(&call, x, &o, false), s = angles(&call, x, &o, true);
  tt_shape whole = tt_shape_of(x), pairs = TT_SHAPE(whole.dim[0], whole.dim[1], whole.dim[2], whole.dim[3] / 2, 2);
  if (o.interleaved) x = tt_reshape(x, pairs), a = tt_select(x, 4, 0), b = tt_select(x, 4, 1);
  else a = tt_slice(x, 3, 0, whole.dim[3] / 2, 1), b = tt_slice(x, 3, whole.dim[3] / 2, TT_END, 1);
  tt_val turned[2] = {tt_sub(tt_mul(a, c), tt_mul(b, s)), tt_add(tt_mul(b, c), tt_mul(a, s))};
  return o.interleaved ? tt_reshape(tt_stack(turned, 2, 4), whole) : tt_concat(turned, 2, 3);
}
