/* nn.h: layers and their functional forms; tinytorch.h includes it. A layer takes a value and a name, declares its parameters
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
/* Wu & He 2018. x [N,C,*]: the channels of a sample in `groups` equal groups, each to mean 0, variance 1; parameters name.weight, .bias [C]. */
TT_API tt_val tt_group_norm_at(tt_here, tt_val x, const char *name, int64_t groups, tt_norm_options o);
#define tt_group_norm(x, name, groups, ...) tt_group_norm_at(TT_HERE, x, name, groups, (tt_norm_options){__VA_ARGS__})
/* Ulyanov et al. 2016. x [N,C,*]: each channel of each sample; parameters as above (PyTorch's has them with affine=True only). */
TT_API tt_val tt_instance_norm_at(tt_here, tt_val x, const char *name, tt_norm_options o);
#define tt_instance_norm(x, name, ...) tt_instance_norm_at(TT_HERE, x, name, (tt_norm_options){__VA_ARGS__})
/* Zhang & Sennrich 2019. Over the last n_axes axes: x / sqrt(mean of x^2 + eps) * weight; eps 0: 1e-6. Parameter name.weight of their shape. */
TT_API tt_val tt_rms_norm_at(tt_here, tt_val x, const char *name, int n_axes, tt_norm_options o);
#define tt_rms_norm(x, name, n_axes, ...) tt_rms_norm_at(TT_HERE, x, name, n_axes, (tt_norm_options){__VA_ARGS__})
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
/* Stochastic depth, Huang et al. 2016: in training the samples x[i] as wholes are 0 with probability p, else x / (1 - p): for the branch that a
 * residual connection adds, tt_add(x, tt_drop_path(branch(x), p)). x [N,...]. */
TT_API tt_val tt_drop_path_at(tt_here, tt_val x, double p);
#define tt_drop_path(x, p) tt_drop_path_at(TT_HERE, x, p)

/* Numbers from N(0, 1) of like's type, by Box & Muller 1958 from 32 random bits each, in training and evaluation alike: other ones in each step and at each call in the
 * trace, the same ones for the same inputs seed and step, which are added to the trace. Predictions and evaluation take seed 0 and step 0. */
TT_API tt_val tt_randn_at(tt_here, tt_val like, tt_shape shape);
#define tt_randn(like, shape) tt_randn_at(TT_HERE, like, shape)

/* -- Activations with weights (their functions stand in ops.h) --------------------------------------------------------- */

/* He et al. 2015: the slope below 0 is learned, one for all (slopes 1) or one a channel of x [N,C,*] (slopes C); it begins at 0.25. Parameter name.weight [slopes]. */
TT_API tt_val tt_prelu_at(tt_here, tt_val x, const char *name, int64_t slopes);
#define tt_prelu(x, name, slopes) tt_prelu_at(TT_HERE, x, name, slopes)
/* Shazeer 2020: down(silu(gate(x)) * up(x)), three linear layers without biases, of `hidden` features between; x [*,E]. Parameters name.gate_proj.weight,
 * name.up_proj.weight [hidden,E], name.down_proj.weight [E,hidden]. */
TT_API tt_val tt_swiglu_at(tt_here, tt_val x, const char *name, int64_t hidden);
#define tt_swiglu(x, name, hidden) tt_swiglu_at(TT_HERE, x, name, hidden)

/* -- Embedding and attention ------------------------------------------------------------------------------------------- */

/* index of any shape -> [*,d]: rows of the parameter name.weight [n,d], from N(0, 1). */
TT_API tt_val tt_embedding_at(tt_here, tt_val index, const char *name, int64_t n, int64_t d);
#define tt_embedding(index, name, n, d) tt_embedding_at(TT_HERE, index, name, n, d)
typedef enum { TT_BAG_SUM, TT_BAG_MEAN, TT_BAG_MAX } tt_bag_mode;
TT_API tt_val tt_f_embedding_at(tt_here, tt_val index, tt_val w);
/* index [B,L] -> [B,d]: sum, mean or maximum of the L rows of each bag. Parameter as embedding's. */
TT_API tt_val tt_embedding_bag_at(tt_here, tt_val index, const char *name, int64_t n, int64_t d, tt_bag_mode mode);
#define tt_embedding_bag(index, name, n, d, mode) tt_embedding_bag_at(TT_HERE, index, name, n, d, mode)
TT_API tt_val tt_f_embedding_bag_at(tt_here, tt_val index, tt_val w, tt_bag_mode mode);      /* index [B,L], w [n,d] -> [B,d] */
#define tt_f_embedding(index, w) tt_f_embedding_at(TT_HERE, index, w)
#define tt_f_embedding_bag(index, w, mode) tt_f_embedding_bag_at(TT_HERE, index, w, mode)

typedef struct {
  double scale;                    /* 0: 1/sqrt(d) */
  bool causal;                     /* row t sees rows 0 .. t only */
  tt_val mask;                     /* broadcasts to [*,T,S]; bool: true takes part; real: is added to the scores */
  tt_val length;                   /* one integer n, known when it runs: of S rows of k and v only the first n are live (a cache of fixed capacity), the others
                                      are not read. causal then means that the T rows of q stand at the places n-T .. n-1 */
  bool no_bias;                    /* of a layer */
} tt_attention_options;
/* softmax(q k' * scale) v, Vaswani et al. 2017; q [*,H,T,d], k [*,G,S,d], v [*,G,S,e] -> [*,H,T,e]. H may be a multiple of G: so many
 * heads of q then share one of k and v (Ainslie et al. 2023). A row that a mask leaves with nothing to see is 0. In f32 it is
 * one kernel, and its derivatives by q, k and v are, which never have all scores in memory (Dao et al. 2022); other types, the derivative by an added mask, derivatives
 * of derivatives and attention_naive have them. */
TT_API tt_val tt_f_attention_at(tt_here, tt_val q, tt_val k, tt_val v, tt_attention_options o);
TT_API tt_val tt_f_attention_naive_at(tt_here, tt_val q, tt_val k, tt_val v, tt_attention_options o);
#define tt_f_attention(q, k, v, ...) tt_f_attention_at(TT_HERE, q, k, v, (tt_attention_options){__VA_ARGS__})
#define tt_f_attention_naive(q, k, v, ...) tt_f_attention_naive_at(TT_HERE, q, k, v, (tt_attention_options){__VA_ARGS__})
/* Generation (generate.h): where the tokens of this call stand, i64[], when tt_generate calls the model for a few more of them; {0} else. */
TT_API tt_val tt_position(tt_val x);
/* There: x [..., T, ...], which stands from tt_position on along the axis, behind what earlier calls left in a cache of `capacity` entries: all of the cache, of which
 * tt_position + T entries are live. The cache is the generator's, not a parameter. An error where there is no position. */
TT_API tt_val tt_cached_at(tt_here, tt_val x, const char *name, int axis, int64_t capacity);
#define tt_cached(x, name, axis, capacity) tt_cached_at(TT_HERE, x, name, axis, capacity)
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

/* -- Recurrent layers ---------------------------------------------------------------------------------------------------- */

/* Walks x [T,N,I] along time (reversed: from its end); h0, c0 [N,H], {0} for zeros. The input's part of all steps is one product; a step is
 * one product and gates. Weights are PyTorch's: w_ih [gates * H, I], w_hh [gates * H, H], biases [gates * H] or {0}.
 *   rnn   h' = tanh or relu(W x + U h)                                                                        (Elman 1990)
 *   gru   r z n: n = tanh(W x + r (U h)), h' = (1 - z) n + z h                                                (Cho et al. 2014, as in PyTorch)
 *   lstm  i f g o: c' = f c + i tanh(g), h' = o tanh(c')                                                      (Hochreiter and Schmidhuber 1997)
 * Gives y [T,N,H], every h, and the last h and c [N,H] (c of an LSTM alone). */
typedef enum { TT_RNN_TANH, TT_RNN_RELU, TT_GRU, TT_LSTM } tt_cell;
typedef struct { tt_val y, h, c; } tt_recurrent_state;
TT_API tt_recurrent_state tt_f_recurrent_at(tt_here, tt_cell cell, tt_val x, tt_val h0, tt_val c0, tt_val w_ih, tt_val w_hh, tt_val b_ih, tt_val b_hh, bool reversed);
#define tt_f_recurrent(cell, x, h0, c0, w_ih, w_hh, b_ih, b_hh, reversed) tt_f_recurrent_at(TT_HERE, cell, x, h0, c0, w_ih, w_hh, b_ih, b_hh, reversed)
/* Layers of it: parameters name.weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0 (and _l0_reverse, _l1 ...), all
 * U(-1/sqrt(H), 1/sqrt(H)). y [T,N,H], bidirectional [T,N,2H]. h0, c0 and the results h, c (of an LSTM alone): [layers * directions, N, H], as torch.nn.LSTM has
 * them: layer by layer, forward, then backward; what one call gives as h and c, the next can begin with. */
typedef struct {
  int layers;                      /* 0: 1 */
  bool bidirectional, no_bias;
  tt_val h0, c0;                   /* left out: zeros */
} tt_recurrent_options;
TT_API tt_recurrent_state tt_recurrent_at(tt_here, tt_cell cell, tt_val x, const char *name, int64_t hidden, tt_recurrent_options o);
#define tt_lstm(x, name, hidden, ...) tt_recurrent_at(TT_HERE, TT_LSTM, x, name, hidden, (tt_recurrent_options){__VA_ARGS__})
#define tt_gru(x, name, hidden, ...) tt_recurrent_at(TT_HERE, TT_GRU, x, name, hidden, (tt_recurrent_options){__VA_ARGS__})
#define tt_rnn(x, name, hidden, ...) tt_recurrent_at(TT_HERE, TT_RNN_TANH, x, name, hidden, (tt_recurrent_options){__VA_ARGS__})

/* -- Transformers ------------------------------------------------------------------------------------------------------ */

typedef enum { TT_ACT_RELU, TT_ACT_GELU, TT_ACT_GELU_TANH, TT_ACT_SILU } tt_activation;
typedef struct {
  bool norm_first;                 /* x + f(norm(x)), Xiong et al. 2020; else norm(x + f(x)), Vaswani et al. 2017 */
  bool causal;                     /* self-attention: row t sees rows 0 .. t only */
  tt_val mask, memory_mask;        /* of self-attention, and of attention to the memory: as in tt_attention_options; {0}: none */
  tt_activation activation;
  double dropout;                  /* of each branch's result, and inside the feed-forward one */
  double drop_path;                /* of each branch: tt_drop_path */
  double eps;                      /* 0: 1e-5 */
  bool no_bias;                    /* no biases in linear layers and attention */
} tt_transformer_options;
/* One block. x [B,T,E] -> [B,T,E]: self-attention, then linear2(activation(linear1(x))) with `hidden` features between, each with a residual connection and a layer
 * norm. Parameters as torch.nn.TransformerEncoderLayer's: name.self_attn.*, .linear1.*, .linear2.*, .norm1.*, .norm2.* */
TT_API tt_val tt_transformer_encoder_at(tt_here, tt_val x, const char *name, int64_t heads, int64_t hidden, tt_transformer_options o);
#define tt_transformer_encoder(x, name, heads, hidden, ...) tt_transformer_encoder_at(TT_HERE, x, name, heads, hidden, (tt_transformer_options){__VA_ARGS__})
/* Between the two, rows of x also attend to memory [B,S,E]. Parameters as torch.nn.TransformerDecoderLayer's: name.multihead_attn.* and .norm3.* besides. */
TT_API tt_val tt_transformer_decoder_at(tt_here, tt_val x, tt_val memory, const char *name, int64_t heads, int64_t hidden, tt_transformer_options o);
#define tt_transformer_decoder(x, memory, name, heads, hidden, ...) tt_transformer_decoder_at(TT_HERE, x, memory, name, heads, hidden, (tt_transformer_options){__VA_ARGS__})
/* Dosovitskiy et al. 2021. x [N,C,H,W] -> [N,T,d], T = H/patch * W/patch: each patch, row by row, through one linear map, which is a convolution of that size and stride.
 * H and W are multiples of patch. Parameters name.proj.weight [d,C,patch,patch], name.proj.bias [d]. */
TT_API tt_val tt_patch_embedding_at(tt_here, tt_val x, const char *name, int64_t patch, int64_t d);
#define tt_patch_embedding(x, name, patch, d) tt_patch_embedding_at(TT_HERE, x, name, patch, d)

#endif
