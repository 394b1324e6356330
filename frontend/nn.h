/* nn.h: layers, their functional forms, and losses; tinytorch.h includes it. A layer takes a value and a name, declares its parameters
 * under that name and applies them; its options are named: tt_conv2d(x, "conv1", 32, 3, .padding = 1, .no_bias = true). A tt_f_NAME
 * takes its weights as values. Layouts are PyTorch's: images NCHW, convolution weights [out, in/groups, *k], linear weights [out, in]. */
#ifndef TT_NN_H
#define TT_NN_H

/* -- Linear ------------------------------------------------------------------------------------------------------------ */

typedef struct {
  bool no_bias;
  tt_init weight, bias;            /* left out: PyTorch's, U(-1/sqrt(in), 1/sqrt(in)) */
} tt_linear_options;
/* x [*, in] -> [*, out]; parameters name.weight [out, in], name.bias [out]. */
TT_API tt_val tt_linear_at(tt_here, tt_val x, const char *name, int64_t out, tt_linear_options o);
#define tt_linear(x, name, out, ...) tt_linear_at(TT_HERE, x, name, out, (tt_linear_options){__VA_ARGS__})
/* x w' + b; b may be {0}. */
TT_API tt_val tt_f_linear_at(tt_here, tt_val x, tt_val w, tt_val b);
#define tt_f_linear(x, w, b) tt_f_linear_at(TT_HERE, x, w, b)

/* -- Convolution and pooling ------------------------------------------------------------------------------------------- */

typedef struct {
  int64_t stride, padding, dilation, groups;           /* 0: stride 1, padding 0, dilation 1, groups 1 */
  int64_t strides[3], paddings[3], dilations[3];       /* one an axis, when any is not 0 */
  int64_t output_padding, output_paddings[3];          /* of transposed convolutions: rows added at the end */
  int64_t kernels[3];                                  /* a layer's kernel that is not square */
  bool no_bias;                                        /* of a layer */
  tt_init weight, bias;                                /* of a layer; left out: PyTorch's, U(-b, b), b = 1/sqrt(in/groups * prod(k)) */
} tt_conv_options;
/* Cross-correlation with zero padding. x [N,C,*D] with 1, 2 or 3 spatial axes; parameters name.weight [out, C/groups, *k], name.bias
 * [out]. D becomes (D + 2 padding - dilation (k - 1) - 1) / stride + 1, rounded down. */
TT_API tt_val tt_conv_at(tt_here, tt_val x, const char *op, int n_spatial, const char *name, int64_t out, int64_t kernel, tt_conv_options o);
#define tt_conv1d(x, name, out, kernel, ...) tt_conv_at(TT_HERE, x, "conv1d", 1, name, out, kernel, (tt_conv_options){__VA_ARGS__})
#define tt_conv2d(x, name, out, kernel, ...) tt_conv_at(TT_HERE, x, "conv2d", 2, name, out, kernel, (tt_conv_options){__VA_ARGS__})
#define tt_conv3d(x, name, out, kernel, ...) tt_conv_at(TT_HERE, x, "conv3d", 3, name, out, kernel, (tt_conv_options){__VA_ARGS__})
/* The same with weights given, in as many dimensions as they have; b may be {0}. */
TT_API tt_val tt_f_conv_at(tt_here, tt_val x, tt_val w, tt_val b, tt_conv_options o);
#define tt_f_conv(x, w, b, ...) tt_f_conv_at(TT_HERE, x, w, b, (tt_conv_options){__VA_ARGS__})

typedef enum { TT_NEAREST, TT_BILINEAR, TT_BICUBIC } tt_interpolate_mode;
typedef struct { tt_interpolate_mode mode; bool align_corners; } tt_interpolate_options;
/* x [N,C,H,W] -> [N,C,height,width], as torch.nn.functional.interpolate with that size. */
TT_API tt_val tt_interpolate_at(tt_here, tt_val x, int64_t height, int64_t width, tt_interpolate_options o);
#define tt_interpolate(x, height, width, ...) tt_interpolate_at(TT_HERE, x, height, width, (tt_interpolate_options){__VA_ARGS__})

/* Transposed convolution, the adjoint of convolution in its image (Zeiler et al. 2010). x [N,C,*D]; parameters name.weight
 * [C, out/groups, *k], name.bias [out]; D becomes (D - 1) stride - 2 padding + dilation (k - 1) + 1 + output_padding. */
TT_API tt_val tt_conv_transpose_at(tt_here, tt_val x, const char *op, int n_spatial, const char *name, int64_t out, int64_t kernel, tt_conv_options o);
#define tt_conv_transpose1d(x, name, out, kernel, ...) tt_conv_transpose_at(TT_HERE, x, "conv_transpose1d", 1, name, out, kernel, (tt_conv_options){__VA_ARGS__})
#define tt_conv_transpose2d(x, name, out, kernel, ...) tt_conv_transpose_at(TT_HERE, x, "conv_transpose2d", 2, name, out, kernel, (tt_conv_options){__VA_ARGS__})
TT_API tt_val tt_f_conv_transpose_at(tt_here, tt_val x, tt_val w, tt_val b, tt_conv_options o);
#define tt_f_conv_transpose(x, w, b, ...) tt_f_conv_transpose_at(TT_HERE, x, w, b, (tt_conv_options){__VA_ARGS__})

typedef struct {
  int64_t stride, padding, dilation;                   /* 0: stride size, padding 0, dilation 1 (max_pool2d only) */
  bool ceil_mode;                                      /* the number of windows is rounded up */
  bool no_count_include_pad;                           /* avg_pool2d: divide by the elements inside of x only */
} tt_pool_options;
/* x [N,C,H,W]; square windows of `size`. The gradient of max goes to the first maximum. */
TT_API tt_val tt_max_pool2d_at(tt_here, tt_val x, int64_t size, tt_pool_options o);
TT_API tt_val tt_avg_pool2d_at(tt_here, tt_val x, int64_t size, tt_pool_options o);
#define tt_max_pool2d(x, size, ...) tt_max_pool2d_at(TT_HERE, x, size, (tt_pool_options){__VA_ARGS__})
#define tt_avg_pool2d(x, size, ...) tt_avg_pool2d_at(TT_HERE, x, size, (tt_pool_options){__VA_ARGS__})
TT_API tt_val tt_adaptive_avg_pool2d_at(tt_here, tt_val x, int64_t height, int64_t width);       /* to [N,C,height,width] */
#define tt_adaptive_avg_pool2d(x, height, width) tt_adaptive_avg_pool2d_at(TT_HERE, x, height, width)

/* -- Normalization ----------------------------------------------------------------------------------------------------- */

typedef struct { double eps, momentum; bool no_affine; } tt_norm_options;      /* 0: eps 1e-5, momentum 0.1; no_affine: no weight and bias */
/* Ioffe & Szegedy 2015. x [N,C,*]: each channel to mean 0, variance 1, then * weight + bias. Parameters name.weight, .bias [C], state
 * name.running_mean, .running_var [C]. Training: the batch's biased variance normalizes, its unbiased one goes into running_var;
 * running = (1 - momentum) running + momentum batch. Evaluation: the running statistics. */
TT_API tt_val tt_batch_norm_at(tt_here, tt_val x, const char *name, tt_norm_options o);
#define tt_batch_norm(x, name, ...) tt_batch_norm_at(TT_HERE, x, name, (tt_norm_options){__VA_ARGS__})
/* Ba et al. 2016. Over the last n_axes axes; parameters name.weight, name.bias of their shape. */
TT_API tt_val tt_layer_norm_at(tt_here, tt_val x, const char *name, int n_axes, tt_norm_options o);
#define tt_layer_norm(x, name, n_axes, ...) tt_layer_norm_at(TT_HERE, x, name, n_axes, (tt_norm_options){__VA_ARGS__})
/* mean, var: running statistics [C] going in; new_mean, new_var: coming out (may be NULL). w and b may be {0}. */
TT_API tt_val tt_f_batch_norm_at(tt_here, tt_val x, tt_val w, tt_val b, tt_val mean, tt_val var, bool training, double momentum, double eps,
                                 tt_val *new_mean, tt_val *new_var);
TT_API tt_val tt_f_layer_norm_at(tt_here, tt_val x, tt_val w, tt_val b, int n_axes, double eps);         /* w and b may be {0} */
TT_API tt_val tt_f_group_norm_at(tt_here, tt_val x, tt_val w, tt_val b, int64_t groups, double eps);     /* x [N,C,*]; Wu & He 2018 */
TT_API tt_val tt_f_instance_norm_at(tt_here, tt_val x, tt_val w, tt_val b, double eps);                  /* each channel of each sample */
TT_API tt_val tt_f_rms_norm_at(tt_here, tt_val x, tt_val w, int n_axes, double eps);                     /* Zhang & Sennrich 2019 */
#define tt_f_batch_norm(x, w, b, mean, var, training, momentum, eps, new_mean, new_var) \
  tt_f_batch_norm_at(TT_HERE, x, w, b, mean, var, training, momentum, eps, new_mean, new_var)
#define tt_f_layer_norm(x, w, b, n_axes, eps) tt_f_layer_norm_at(TT_HERE, x, w, b, n_axes, eps)
#define tt_f_group_norm(x, w, b, groups, eps) tt_f_group_norm_at(TT_HERE, x, w, b, groups, eps)
#define tt_f_instance_norm(x, w, b, eps) tt_f_instance_norm_at(TT_HERE, x, w, b, eps)
#define tt_f_rms_norm(x, w, n_axes, eps) tt_f_rms_norm_at(TT_HERE, x, w, n_axes, eps)

/* -- Dropout ---------------------------------------------------------------------------------------------------------- */

/* Srivastava et al. 2014. In training each element is 0 with probability p, else x / (1 - p); x itself in evaluation. The mask follows
 * from the inputs seed and step, which are added to the trace, and from which dropout of the trace this is. */
TT_API tt_val tt_dropout_at(tt_here, tt_val x, double p);
#define tt_dropout(x, p) tt_dropout_at(TT_HERE, x, p)
/* -- Embedding and attention ------------------------------------------------------------------------------------------- */

/* index of any shape -> [*,d]: rows of the parameter name.weight [n,d], from N(0, 1). */
TT_API tt_val tt_embedding_at(tt_here, tt_val index, const char *name, int64_t n, int64_t d);
#define tt_embedding(index, name, n, d) tt_embedding_at(TT_HERE, index, name, n, d)
typedef enum { TT_BAG_SUM, TT_BAG_MEAN, TT_BAG_MAX } tt_bag_mode;
TT_API tt_val tt_f_embedding_at(tt_here, tt_val index, tt_val w);
TT_API tt_val tt_f_embedding_bag_at(tt_here, tt_val index, tt_val w, tt_bag_mode mode);      /* index [B,L], w [n,d] -> [B,d] */
#define tt_f_embedding(index, w) tt_f_embedding_at(TT_HERE, index, w)
#define tt_f_embedding_bag(index, w, mode) tt_f_embedding_bag_at(TT_HERE, index, w, mode)

typedef struct {
  double scale;                    /* 0: 1/sqrt(d) */
  bool causal;                     /* row t sees rows 0 .. t only */
  tt_val mask;                     /* broadcasts to [*,T,S]; bool: true takes part; real: is added to the scores */
  bool no_bias;                    /* of a layer */
} tt_attention_options;
/* softmax(q k' * scale) v, Vaswani et al. 2017; q [*,H,T,d], k [*,G,S,d], v [*,G,S,e] -> [*,H,T,e]. H may be a multiple of G: so many
 * heads of q then share one of k and v (Ainslie et al. 2023). A row that a mask leaves with nothing to see sees all alike. */
TT_API tt_val tt_f_attention_at(tt_here, tt_val q, tt_val k, tt_val v, tt_attention_options o);
#define tt_f_attention(q, k, v, ...) tt_f_attention_at(TT_HERE, q, k, v, (tt_attention_options){__VA_ARGS__})
/* x [B,T,E] attends to y [B,S,E] (x itself: self-attention). w_in [3E,E], b_in [3E]: of q, k, v; w_out [E,E], b_out [E]. The biases may be
 * {0}; a mask broadcasts to [B,heads,T,S]. */
TT_API tt_val tt_f_multi_head_attention_at(tt_here, tt_val x, tt_val y, tt_val w_in, tt_val b_in, tt_val w_out, tt_val b_out, int64_t heads, tt_attention_options o);
#define tt_f_multi_head_attention(x, y, w_in, b_in, w_out, b_out, heads, ...) \
  tt_f_multi_head_attention_at(TT_HERE, x, y, w_in, b_in, w_out, b_out, heads, (tt_attention_options){__VA_ARGS__})
/* Its layer: parameters name.in_proj_weight, .in_proj_bias, name.out_proj.weight, .bias. */
TT_API tt_val tt_multi_head_attention_at(tt_here, tt_val x, tt_val y, const char *name, int64_t heads, tt_attention_options o);
#define tt_multi_head_attention(x, y, name, heads, ...) tt_multi_head_attention_at(TT_HERE, x, y, name, heads, (tt_attention_options){__VA_ARGS__})
/* One head: q k v and the result through linear layers name.q, .k, .v, .out of d features. x [T,in] or [B,T,in]; every row sees all T. */
TT_API tt_val tt_self_attention_at(tt_here, tt_val x, const char *name, int64_t d);
#define tt_self_attention(x, name, d) tt_self_attention_at(TT_HERE, x, name, d)
typedef struct {
  double base;                     /* 0: 10000 */
  bool interleaved;                /* pairs are (0, 1), (2, 3) ...; else (0, D/2), (1, D/2 + 1) ... */
  tt_val positions;                /* integers [T]; left out: 0 .. T-1 */
} tt_rotary_options;
/* Su et al. 2021: x [B,T,H,D], pair i of position t turned by the angle t * base^(-2i/D). */
TT_API tt_val tt_rotary_embedding_at(tt_here, tt_val x, tt_rotary_options o);
#define tt_rotary_embedding(x, ...) tt_rotary_embedding_at(TT_HERE, x, (tt_rotary_options){__VA_ARGS__})

/* -- Sequential: layers as data, named "0", "1", ... in the present scope, as torch.nn.Sequential names them ------------ */

typedef struct tt_layer {
  tt_val (*apply)(tt_here here, tt_val x, const char *name, const struct tt_layer *layer);
  tt_here here;
  int64_t n, kernel;
  double number;
  tt_conv_options conv;
  tt_linear_options linear;
  tt_pool_options pool;
  tt_norm_options norm;
  tt_val (*function)(tt_val x, void *arg); void *arg;
} tt_layer;
TT_API tt_val tt_sequential_at(tt_here, tt_val x, const tt_layer *layers, int n);
/* tt_sequential(x, TT_CONV2D(32, 3), TT_RELU, TT_FLATTEN, TT_LINEAR(10)) */
#define tt_sequential(x, ...) tt_sequential_at(TT_HERE, x, (const tt_layer[]){__VA_ARGS__}, (int)(sizeof((const tt_layer[]){__VA_ARGS__}) / sizeof(tt_layer)))
TT_API tt_val tt_apply_linear(tt_here, tt_val, const char *, const tt_layer *);
TT_API tt_val tt_apply_conv2d(tt_here, tt_val, const char *, const tt_layer *);
TT_API tt_val tt_apply_max_pool2d(tt_here, tt_val, const char *, const tt_layer *);
TT_API tt_val tt_apply_avg_pool2d(tt_here, tt_val, const char *, const tt_layer *);
TT_API tt_val tt_apply_adaptive_avg_pool2d(tt_here, tt_val, const char *, const tt_layer *);
TT_API tt_val tt_apply_batch_norm(tt_here, tt_val, const char *, const tt_layer *);
TT_API tt_val tt_apply_layer_norm(tt_here, tt_val, const char *, const tt_layer *);
TT_API tt_val tt_apply_dropout(tt_here, tt_val, const char *, const tt_layer *);
TT_API tt_val tt_apply_self_attention(tt_here, tt_val, const char *, const tt_layer *);
TT_API tt_val tt_apply_relu(tt_here, tt_val, const char *, const tt_layer *);
TT_API tt_val tt_apply_gelu(tt_here, tt_val, const char *, const tt_layer *);
TT_API tt_val tt_apply_sigmoid(tt_here, tt_val, const char *, const tt_layer *);
TT_API tt_val tt_apply_tanh(tt_here, tt_val, const char *, const tt_layer *);
TT_API tt_val tt_apply_softmax(tt_here, tt_val, const char *, const tt_layer *);
TT_API tt_val tt_apply_flatten(tt_here, tt_val, const char *, const tt_layer *);
TT_API tt_val tt_apply_function(tt_here, tt_val, const char *, const tt_layer *);
#define TT_LAYER(apply_, ...) {.apply = tt_apply_##apply_, .here = {__FILE__, __LINE__}, __VA_ARGS__}
#define TT_LINEAR(out, ...) TT_LAYER(linear, .n = (out), .linear = {__VA_ARGS__})
#define TT_CONV2D(out, size, ...) TT_LAYER(conv2d, .n = (out), .kernel = (size), .conv = {__VA_ARGS__})
#define TT_MAX_POOL2D(size, ...) TT_LAYER(max_pool2d, .n = (size), .pool = {__VA_ARGS__})
#define TT_AVG_POOL2D(size, ...) TT_LAYER(avg_pool2d, .n = (size), .pool = {__VA_ARGS__})
#define TT_ADAPTIVE_AVG_POOL2D(size) TT_LAYER(adaptive_avg_pool2d, .n = (size))
#define TT_BATCH_NORM TT_LAYER(batch_norm)
#define TT_LAYER_NORM(n_axes, ...) TT_LAYER(layer_norm, .n = (n_axes), .norm = {__VA_ARGS__})
#define TT_DROPOUT(p) TT_LAYER(dropout, .number = (p))
#define TT_SELF_ATTENTION(d) TT_LAYER(self_attention, .n = (d))
#define TT_RELU TT_LAYER(relu)
#define TT_GELU TT_LAYER(gelu)
#define TT_SIGMOID TT_LAYER(sigmoid)
#define TT_TANH TT_LAYER(tanh)
#define TT_SOFTMAX TT_LAYER(softmax)                     /* over the last axis */
#define TT_FLATTEN TT_LAYER(flatten)                     /* from axis 1 */
#define TT_FUNCTION(f, argument) TT_LAYER(function, .function = (f), .arg = (argument))    /* f(x, arg), in the scope of its number */

/* -- Losses. reduction: the mean unless said; x and y of equal shapes unless said ---------------------------------------- */

typedef enum { TT_MEAN, TT_SUM, TT_NONE, TT_BATCHMEAN } tt_reduction;          /* BATCHMEAN: sum / first dim */
typedef struct {
  tt_reduction reduction;
  tt_val weight;                   /* [C], of classes */
  double label_smoothing;          /* 0 .. 1; Szegedy et al. 2015 */
  bool ignoring; int64_t ignore_index;     /* ignoring: integer labels equal to ignore_index count for nothing */
} tt_cross_entropy_options;
/* x: logits [N,C] or [N,C,*D]; y: integer labels [N] or [N,*D], or probabilities of x's shape and type. The mean is over what counts,
 * weighted for integer labels. When x is a softmax over its classes its logits are used, and the trace has a warning that names both
 * lines. */
TT_API tt_val tt_cross_entropy_at(tt_here, tt_val x, tt_val y, tt_cross_entropy_options o);
#define tt_cross_entropy(x, y, ...) tt_cross_entropy_at(TT_HERE, x, y, (tt_cross_entropy_options){__VA_ARGS__})
/* x: log-probabilities, y: integer labels, as in cross_entropy. */
TT_API tt_val tt_nll_at(tt_here, tt_val x, tt_val y, tt_cross_entropy_options o);
#define tt_nll(x, y, ...) tt_nll_at(TT_HERE, x, y, (tt_cross_entropy_options){__VA_ARGS__})
TT_API tt_val tt_mse_at(tt_here, tt_val x, tt_val y, tt_reduction r);
TT_API tt_val tt_l1_at(tt_here, tt_val x, tt_val y, tt_reduction r);
TT_API tt_val tt_huber_at(tt_here, tt_val x, tt_val y, double delta, tt_reduction r);          /* Huber 1964 */
TT_API tt_val tt_smooth_l1_at(tt_here, tt_val x, tt_val y, double beta, tt_reduction r);       /* huber / beta */
TT_API tt_val tt_binary_cross_entropy_at(tt_here, tt_val x, tt_val y, tt_reduction r);         /* x: probabilities; logarithms >= -100 */
TT_API tt_val tt_binary_cross_entropy_with_logits_at(tt_here, tt_val x, tt_val y, tt_val weight, tt_val pos_weight, tt_reduction r);   /* weights broadcast; {0}: none */
TT_API tt_val tt_kl_div_at(tt_here, tt_val x, tt_val y, bool log_target, tt_reduction r);      /* x: log-probabilities; y: probabilities, or their logarithms */
TT_API tt_val tt_hinge_embedding_at(tt_here, tt_val x, tt_val y, double margin, tt_reduction r);       /* y: 1 or -1, of x's type or integers */
TT_API tt_val tt_cosine_embedding_at(tt_here, tt_val a, tt_val b, tt_val y, double margin, tt_reduction r);    /* a, b [N,D], y [N]: 1 or -1 */
TT_API tt_val tt_triplet_margin_at(tt_here, tt_val anchor, tt_val positive, tt_val negative, double margin, double p, tt_reduction r);   /* [N,D] */
TT_API tt_val tt_multi_margin_at(tt_here, tt_val x, tt_val y, double margin, tt_reduction r);  /* x [N,C], y integers [N] */
TT_API tt_val tt_gaussian_nll_at(tt_here, tt_val x, tt_val y, tt_val var, bool full, double eps, tt_reduction r);
TT_API tt_val tt_poisson_nll_at(tt_here, tt_val x, tt_val y, bool log_input, bool full, double eps, tt_reduction r);
#define tt_mse(x, y, r) tt_mse_at(TT_HERE, x, y, r)
#define tt_l1(x, y, r) tt_l1_at(TT_HERE, x, y, r)
#define tt_huber(x, y, delta, r) tt_huber_at(TT_HERE, x, y, delta, r)
#define tt_smooth_l1(x, y, beta, r) tt_smooth_l1_at(TT_HERE, x, y, beta, r)
#define tt_binary_cross_entropy(x, y, r) tt_binary_cross_entropy_at(TT_HERE, x, y, r)
#define tt_binary_cross_entropy_with_logits(x, y, weight, pos_weight, r) tt_binary_cross_entropy_with_logits_at(TT_HERE, x, y, weight, pos_weight, r)
#define tt_kl_div(x, y, log_target, r) tt_kl_div_at(TT_HERE, x, y, log_target, r)
#define tt_hinge_embedding(x, y, margin, r) tt_hinge_embedding_at(TT_HERE, x, y, margin, r)
#define tt_cosine_embedding(a, b, y, margin, r) tt_cosine_embedding_at(TT_HERE, a, b, y, margin, r)
#define tt_triplet_margin(anchor, positive, negative, margin, p, r) tt_triplet_margin_at(TT_HERE, anchor, positive, negative, margin, p, r)
#define tt_multi_margin(x, y, margin, r) tt_multi_margin_at(TT_HERE, x, y, margin, r)
#define tt_gaussian_nll(x, y, var, full, eps, r) tt_gaussian_nll_at(TT_HERE, x, y, var, full, eps, r)
#define tt_poisson_nll(x, y, log_input, full, eps, r) tt_poisson_nll_at(TT_HERE, x, y, log_input, full, eps, r)

#endif
