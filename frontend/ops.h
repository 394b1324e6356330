/* ops.h: operations on symbolic values; tinytorch.h includes it. Shapes are fixed and known, so every mistake in them is found while
 * tracing. Two values of an elementwise op broadcast as in NumPy and must be of one element type (tt_cast changes it); a C number in
 * place of a value takes the type of the other: tt_mul(x, 2), tt_sub(1, x). "x" is of any shape unless said. */
#ifndef TT_OPS_H
#define TT_OPS_H

/* A value or a number, for ops that take either. */
typedef struct { tt_val val; double number; bool is_number; } tt_operand;
TT_API tt_operand tt_operand_of(tt_val v);
TT_API tt_operand tt_operand_number(double v);
#define TT_OPERAND(a) _Generic((a), tt_val: tt_operand_of, default: tt_operand_number)(a)

/* -- Values from nothing ----------------------------------------------------------------------------------------------- */

TT_API tt_val tt_constant_at(tt_here, tt_trace *t, tt_dtype dtype, tt_shape shape, const void *data);    /* dense data, copied */
TT_API tt_val tt_scalar_at(tt_here, tt_val like, double value);                        /* [] of like's type */
TT_API tt_val tt_full_at(tt_here, tt_val like, tt_shape shape, double value);
TT_API tt_val tt_arange_at(tt_here, tt_trace *t, tt_dtype dtype, int64_t n);           /* 0 .. n-1 */
#define tt_constant(trace, dtype, shape, data) tt_constant_at(TT_HERE, trace, dtype, shape, data)
#define tt_scalar(like, value) tt_scalar_at(TT_HERE, like, value)
#define tt_full(like, shape, value) tt_full_at(TT_HERE, like, shape, value)
#define tt_arange(trace, dtype, n) tt_arange_at(TT_HERE, trace, dtype, n)

/* -- Elementwise, one value -------------------------------------------------------------------------------------------- */

TT_API tt_val tt_neg_at(tt_here, tt_val x);
TT_API tt_val tt_abs_at(tt_here, tt_val x);
TT_API tt_val tt_sign_at(tt_here, tt_val x);
TT_API tt_val tt_exp_at(tt_here, tt_val x);
TT_API tt_val tt_expm1_at(tt_here, tt_val x);
TT_API tt_val tt_exp2_at(tt_here, tt_val x);
TT_API tt_val tt_log_at(tt_here, tt_val x);
TT_API tt_val tt_log1p_at(tt_here, tt_val x);
TT_API tt_val tt_log2_at(tt_here, tt_val x);
TT_API tt_val tt_log10_at(tt_here, tt_val x);
TT_API tt_val tt_sqrt_at(tt_here, tt_val x);
TT_API tt_val tt_rsqrt_at(tt_here, tt_val x);
TT_API tt_val tt_square_at(tt_here, tt_val x);
TT_API tt_val tt_reciprocal_at(tt_here, tt_val x);
TT_API tt_val tt_sin_at(tt_here, tt_val x);
TT_API tt_val tt_cos_at(tt_here, tt_val x);
TT_API tt_val tt_tan_at(tt_here, tt_val x);
TT_API tt_val tt_atan_at(tt_here, tt_val x);
TT_API tt_val tt_tanh_at(tt_here, tt_val x);
TT_API tt_val tt_erf_at(tt_here, tt_val x);
TT_API tt_val tt_floor_at(tt_here, tt_val x);
TT_API tt_val tt_ceil_at(tt_here, tt_val x);
TT_API tt_val tt_round_at(tt_here, tt_val x);                        /* halves to even */
TT_API tt_val tt_trunc_at(tt_here, tt_val x);
TT_API tt_val tt_not_at(tt_here, tt_val x);                          /* bool: logical; integers: bitwise */
TT_API tt_val tt_isnan_at(tt_here, tt_val x);                        /* bool */
TT_API tt_val tt_cast_at(tt_here, tt_val x, tt_dtype dtype);         /* real to integer truncates and saturates; to bool: != 0 */
TT_API tt_val tt_bitcast_at(tt_here, tt_val x, tt_dtype dtype);      /* same width */
TT_API tt_val tt_stop_gradient_at(tt_here, tt_val x);
TT_API tt_val tt_clamp_at(tt_here, tt_val x, double low, double high);
#define tt_neg(x) tt_neg_at(TT_HERE, x)
#define tt_abs(x) tt_abs_at(TT_HERE, x)
#define tt_sign(x) tt_sign_at(TT_HERE, x)
#define tt_exp(x) tt_exp_at(TT_HERE, x)
#define tt_expm1(x) tt_expm1_at(TT_HERE, x)
#define tt_exp2(x) tt_exp2_at(TT_HERE, x)
#define tt_log(x) tt_log_at(TT_HERE, x)
#define tt_log1p(x) tt_log1p_at(TT_HERE, x)
#define tt_log2(x) tt_log2_at(TT_HERE, x)
#define tt_log10(x) tt_log10_at(TT_HERE, x)
#define tt_sqrt(x) tt_sqrt_at(TT_HERE, x)
#define tt_rsqrt(x) tt_rsqrt_at(TT_HERE, x)
#define tt_square(x) tt_square_at(TT_HERE, x)
#define tt_reciprocal(x) tt_reciprocal_at(TT_HERE, x)
#define tt_sin(x) tt_sin_at(TT_HERE, x)
#define tt_cos(x) tt_cos_at(TT_HERE, x)
#define tt_tan(x) tt_tan_at(TT_HERE, x)
#define tt_atan(x) tt_atan_at(TT_HERE, x)
#define tt_tanh(x) tt_tanh_at(TT_HERE, x)
#define tt_erf(x) tt_erf_at(TT_HERE, x)
#define tt_floor(x) tt_floor_at(TT_HERE, x)
#define tt_ceil(x) tt_ceil_at(TT_HERE, x)
#define tt_round(x) tt_round_at(TT_HERE, x)
#define tt_trunc(x) tt_trunc_at(TT_HERE, x)
#define tt_not(x) tt_not_at(TT_HERE, x)
#define tt_isnan(x) tt_isnan_at(TT_HERE, x)
#define tt_cast(x, dtype) tt_cast_at(TT_HERE, x, dtype)
#define tt_bitcast(x, dtype) tt_bitcast_at(TT_HERE, x, dtype)
#define tt_stop_gradient(x) tt_stop_gradient_at(TT_HERE, x)
#define tt_clamp(x, low, high) tt_clamp_at(TT_HERE, x, low, high)

/* -- Activations ------------------------------------------------------------------------------------------------------- */

TT_API tt_val tt_relu_at(tt_here, tt_val x);
TT_API tt_val tt_relu6_at(tt_here, tt_val x);
TT_API tt_val tt_leaky_relu_at(tt_here, tt_val x, double slope);
TT_API tt_val tt_f_prelu_at(tt_here, tt_val x, tt_val w);            /* x [N,C,*], w [C] or [1]: the slope below 0 of each channel */
TT_API tt_val tt_elu_at(tt_here, tt_val x, double alpha);
TT_API tt_val tt_selu_at(tt_here, tt_val x);
TT_API tt_val tt_gelu_at(tt_here, tt_val x, bool tanh);              /* Hendrycks & Gimpel 2016; tanh: its approximation */
TT_API tt_val tt_silu_at(tt_here, tt_val x);                         /* x * sigmoid(x) */
TT_API tt_val tt_mish_at(tt_here, tt_val x);
TT_API tt_val tt_softplus_at(tt_here, tt_val x, double beta, double threshold);   /* log(1 + exp(beta x)) / beta; x above threshold / beta */
TT_API tt_val tt_sigmoid_at(tt_here, tt_val x);
TT_API tt_val tt_log_sigmoid_at(tt_here, tt_val x);
TT_API tt_val tt_hardswish_at(tt_here, tt_val x);
TT_API tt_val tt_hardsigmoid_at(tt_here, tt_val x);
TT_API tt_val tt_hardtanh_at(tt_here, tt_val x, double low, double high);
TT_API tt_val tt_softsign_at(tt_here, tt_val x);
TT_API tt_val tt_tanhshrink_at(tt_here, tt_val x);
TT_API tt_val tt_softmax_at(tt_here, tt_val x, int axis);
TT_API tt_val tt_log_softmax_at(tt_here, tt_val x, int axis);
TT_API tt_val tt_glu_at(tt_here, tt_val x, int axis);                /* first half * sigmoid(second half); Dauphin et al. 2016 */
TT_API tt_val tt_f_swiglu_at(tt_here, tt_val x, tt_val w, tt_val v, tt_val o); /* (silu(x w') * (x v')) o'; Shazeer 2020 */
#define tt_relu(x) tt_relu_at(TT_HERE, x)
#define tt_relu6(x) tt_relu6_at(TT_HERE, x)
#define tt_leaky_relu(x, slope) tt_leaky_relu_at(TT_HERE, x, slope)
#define tt_f_prelu(x, w) tt_f_prelu_at(TT_HERE, x, w)
#define tt_elu(x, alpha) tt_elu_at(TT_HERE, x, alpha)
#define tt_selu(x) tt_selu_at(TT_HERE, x)
#define tt_gelu(x, tanh) tt_gelu_at(TT_HERE, x, tanh)
#define tt_silu(x) tt_silu_at(TT_HERE, x)
#define tt_mish(x) tt_mish_at(TT_HERE, x)
#define tt_softplus(x, beta, threshold) tt_softplus_at(TT_HERE, x, beta, threshold)
#define tt_sigmoid(x) tt_sigmoid_at(TT_HERE, x)
#define tt_log_sigmoid(x) tt_log_sigmoid_at(TT_HERE, x)
#define tt_hardswish(x) tt_hardswish_at(TT_HERE, x)
#define tt_hardsigmoid(x) tt_hardsigmoid_at(TT_HERE, x)
#define tt_hardtanh(x, low, high) tt_hardtanh_at(TT_HERE, x, low, high)
#define tt_softsign(x) tt_softsign_at(TT_HERE, x)
#define tt_tanhshrink(x) tt_tanhshrink_at(TT_HERE, x)
#define tt_softmax(x, axis) tt_softmax_at(TT_HERE, x, axis)
#define tt_log_softmax(x, axis) tt_log_softmax_at(TT_HERE, x, axis)
#define tt_glu(x, axis) tt_glu_at(TT_HERE, x, axis)
#define tt_f_swiglu(x, w, v, o) tt_f_swiglu_at(TT_HERE, x, w, v, o)

/* -- Elementwise, two or three values ---------------------------------------------------------------------------------- */

TT_API tt_val tt_add_at(tt_here, tt_operand a, tt_operand b);
TT_API tt_val tt_sub_at(tt_here, tt_operand a, tt_operand b);
TT_API tt_val tt_mul_at(tt_here, tt_operand a, tt_operand b);
TT_API tt_val tt_div_at(tt_here, tt_operand a, tt_operand b);        /* integers truncate; by zero gives 0 */
TT_API tt_val tt_fmod_at(tt_here, tt_operand a, tt_operand b);       /* sign of a */
TT_API tt_val tt_pow_at(tt_here, tt_operand a, tt_operand b);
TT_API tt_val tt_atan2_at(tt_here, tt_operand a, tt_operand b);
TT_API tt_val tt_hypot_at(tt_here, tt_operand a, tt_operand b);
TT_API tt_val tt_maximum_at(tt_here, tt_operand a, tt_operand b);    /* NaN when either is; equal values share the gradient */
TT_API tt_val tt_minimum_at(tt_here, tt_operand a, tt_operand b);
TT_API tt_val tt_and_at(tt_here, tt_operand a, tt_operand b);        /* bool: logical; integers: bitwise */
TT_API tt_val tt_or_at(tt_here, tt_operand a, tt_operand b);
TT_API tt_val tt_xor_at(tt_here, tt_operand a, tt_operand b);
TT_API tt_val tt_eq_at(tt_here, tt_operand a, tt_operand b);         /* comparisons give bool */
TT_API tt_val tt_ne_at(tt_here, tt_operand a, tt_operand b);
TT_API tt_val tt_lt_at(tt_here, tt_operand a, tt_operand b);
TT_API tt_val tt_le_at(tt_here, tt_operand a, tt_operand b);
TT_API tt_val tt_gt_at(tt_here, tt_operand a, tt_operand b);
TT_API tt_val tt_ge_at(tt_here, tt_operand a, tt_operand b);
TT_API tt_val tt_where_at(tt_here, tt_val condition, tt_operand a, tt_operand b);      /* condition: bool */
#define tt_add(a, b) tt_add_at(TT_HERE, TT_OPERAND(a), TT_OPERAND(b))
#define tt_sub(a, b) tt_sub_at(TT_HERE, TT_OPERAND(a), TT_OPERAND(b))
#define tt_mul(a, b) tt_mul_at(TT_HERE, TT_OPERAND(a), TT_OPERAND(b))
#define tt_div(a, b) tt_div_at(TT_HERE, TT_OPERAND(a), TT_OPERAND(b))
#define tt_fmod(a, b) tt_fmod_at(TT_HERE, TT_OPERAND(a), TT_OPERAND(b))
#define tt_pow(a, b) tt_pow_at(TT_HERE, TT_OPERAND(a), TT_OPERAND(b))
#define tt_atan2(a, b) tt_atan2_at(TT_HERE, TT_OPERAND(a), TT_OPERAND(b))
#define tt_hypot(a, b) tt_hypot_at(TT_HERE, TT_OPERAND(a), TT_OPERAND(b))
#define tt_maximum(a, b) tt_maximum_at(TT_HERE, TT_OPERAND(a), TT_OPERAND(b))
#define tt_minimum(a, b) tt_minimum_at(TT_HERE, TT_OPERAND(a), TT_OPERAND(b))
#define tt_and(a, b) tt_and_at(TT_HERE, TT_OPERAND(a), TT_OPERAND(b))
#define tt_or(a, b) tt_or_at(TT_HERE, TT_OPERAND(a), TT_OPERAND(b))
#define tt_xor(a, b) tt_xor_at(TT_HERE, TT_OPERAND(a), TT_OPERAND(b))
#define tt_eq(a, b) tt_eq_at(TT_HERE, TT_OPERAND(a), TT_OPERAND(b))
#define tt_ne(a, b) tt_ne_at(TT_HERE, TT_OPERAND(a), TT_OPERAND(b))
#define tt_lt(a, b) tt_lt_at(TT_HERE, TT_OPERAND(a), TT_OPERAND(b))
#define tt_le(a, b) tt_le_at(TT_HERE, TT_OPERAND(a), TT_OPERAND(b))
#define tt_gt(a, b) tt_gt_at(TT_HERE, TT_OPERAND(a), TT_OPERAND(b))
#define tt_ge(a, b) tt_ge_at(TT_HERE, TT_OPERAND(a), TT_OPERAND(b))
#define tt_where(condition, a, b) tt_where_at(TT_HERE, condition, TT_OPERAND(a), TT_OPERAND(b))

/* -- Reductions. axes: TT_AXES(...) or TT_ALL; keepdim: reduced axes stay as 1 ------------------------------------------ */

TT_API tt_val tt_sum_at(tt_here, tt_val x, tt_ints axes, bool keepdim);
TT_API tt_val tt_prod_at(tt_here, tt_val x, tt_ints axes, bool keepdim);
TT_API tt_val tt_amax_at(tt_here, tt_val x, tt_ints axes, bool keepdim);     /* equal values share the gradient */
TT_API tt_val tt_amin_at(tt_here, tt_val x, tt_ints axes, bool keepdim);
TT_API tt_val tt_mean_at(tt_here, tt_val x, tt_ints axes, bool keepdim);
TT_API tt_val tt_var_at(tt_here, tt_val x, tt_ints axes, int64_t correction, bool keepdim);      /* divides by count - correction */
TT_API tt_val tt_std_at(tt_here, tt_val x, tt_ints axes, int64_t correction, bool keepdim);
TT_API tt_val tt_logsumexp_at(tt_here, tt_val x, tt_ints axes, bool keepdim);
TT_API tt_val tt_vector_norm_at(tt_here, tt_val x, double ord, tt_ints axes, bool keepdim);      /* ord: any number, INFINITY too */
TT_API tt_val tt_argmax_at(tt_here, tt_val x, int axis, bool keepdim);       /* i64, the first of equals */
TT_API tt_val tt_argmin_at(tt_here, tt_val x, int axis, bool keepdim);
TT_API tt_val tt_cumsum_at(tt_here, tt_val x, int axis);
TT_API tt_val tt_cumprod_at(tt_here, tt_val x, int axis);
#define tt_sum(x, axes, keepdim) tt_sum_at(TT_HERE, x, axes, keepdim)
#define tt_prod(x, axes, keepdim) tt_prod_at(TT_HERE, x, axes, keepdim)
#define tt_amax(x, axes, keepdim) tt_amax_at(TT_HERE, x, axes, keepdim)
#define tt_amin(x, axes, keepdim) tt_amin_at(TT_HERE, x, axes, keepdim)
#define tt_mean(x, axes, keepdim) tt_mean_at(TT_HERE, x, axes, keepdim)
#define tt_var(x, axes, correction, keepdim) tt_var_at(TT_HERE, x, axes, correction, keepdim)
#define tt_std(x, axes, correction, keepdim) tt_std_at(TT_HERE, x, axes, correction, keepdim)
#define tt_logsumexp(x, axes, keepdim) tt_logsumexp_at(TT_HERE, x, axes, keepdim)
#define tt_vector_norm(x, ord, axes, keepdim) tt_vector_norm_at(TT_HERE, x, ord, axes, keepdim)
#define tt_argmax(x, axis, keepdim) tt_argmax_at(TT_HERE, x, axis, keepdim)
#define tt_argmin(x, axis, keepdim) tt_argmin_at(TT_HERE, x, axis, keepdim)
#define tt_cumsum(x, axis) tt_cumsum_at(TT_HERE, x, axis)
#define tt_cumprod(x, axis) tt_cumprod_at(TT_HERE, x, axis)

/* -- Shape and movement ------------------------------------------------------------------------------------------------ */

#define TT_END INT64_MAX                                                   /* a slice's stop: to the end */
typedef enum { TT_PAD_CONSTANT, TT_PAD_REPLICATE, TT_PAD_REFLECT, TT_PAD_CIRCULAR } tt_pad_mode;
TT_API tt_val tt_reshape_at(tt_here, tt_val x, tt_shape shape);            /* one dim may be -1 */
TT_API tt_val tt_flatten_at(tt_here, tt_val x, int start_axis);            /* axes start_axis .. last become one */
TT_API tt_val tt_permute_at(tt_here, tt_val x, tt_ints axes);              /* result axis i is x's axis axes[i] */
TT_API tt_val tt_transpose_at(tt_here, tt_val x, int axis0, int axis1);
TT_API tt_val tt_unsqueeze_at(tt_here, tt_val x, int axis);                /* a new axis of 1 */
TT_API tt_val tt_squeeze_at(tt_here, tt_val x, int axis);                  /* takes away an axis of 1 */
TT_API tt_val tt_broadcast_to_at(tt_here, tt_val x, tt_shape shape);
TT_API tt_val tt_slice_at(tt_here, tt_val x, int axis, int64_t start, int64_t stop, int64_t step);   /* as Python's: negative counts from the end, clipped; step >= 1 */
TT_API tt_val tt_select_at(tt_here, tt_val x, int axis, int64_t index);    /* x at index; the axis falls away */
TT_API tt_val tt_pad_at(tt_here, tt_val x, tt_ints pads, tt_pad_mode mode, double value);   /* pads: lo, hi of the last axis, then of the one before ... ; constant: negative cuts off */
TT_API tt_val tt_concat_at(tt_here, const tt_val *xs, int n, int axis);    /* tt_val xs[] = {a, b}; tt_concat(xs, 2, 0) */
TT_API tt_val tt_stack_at(tt_here, const tt_val *xs, int n, int axis);     /* along a new axis */
TT_API void tt_split_at(tt_here, tt_val x, int n, int axis, tt_val *out);  /* n equal parts */
TT_API tt_val tt_flip_at(tt_here, tt_val x, tt_ints axes);
TT_API tt_val tt_roll_at(tt_here, tt_val x, tt_ints shifts, tt_ints axes);
TT_API tt_val tt_repeat_at(tt_here, tt_val x, tt_ints repeats);            /* tiles; more numbers than axes add axes in front */
TT_API tt_val tt_repeat_interleave_at(tt_here, tt_val x, int64_t repeats, int axis);
TT_API tt_val tt_diagonal_at(tt_here, tt_val x, int64_t offset, int axis1, int axis2);   /* becomes the last axis */
TT_API tt_val tt_tril_at(tt_here, tt_val x, int64_t diagonal);             /* [*,R,C]; 0 above the diagonal */
TT_API tt_val tt_triu_at(tt_here, tt_val x, int64_t diagonal);
TT_API tt_val tt_unfold_at(tt_here, tt_val x, int axis, int64_t size, int64_t step);     /* windows; their elements become the last axis */
TT_API tt_val tt_pixel_shuffle_at(tt_here, tt_val x, int64_t factor);      /* [N,C*f*f,H,W] -> [N,C,H*f,W*f]; Shi et al. 2016 */
TT_API tt_val tt_pixel_unshuffle_at(tt_here, tt_val x, int64_t factor);    /* its inverse: [N,C,H*f,W*f] -> [N,C*f*f,H,W] */
#define tt_reshape(x, shape) tt_reshape_at(TT_HERE, x, shape)
#define tt_flatten(x, start_axis) tt_flatten_at(TT_HERE, x, start_axis)
#define tt_permute(x, axes) tt_permute_at(TT_HERE, x, axes)
#define tt_transpose(x, axis0, axis1) tt_transpose_at(TT_HERE, x, axis0, axis1)
#define tt_unsqueeze(x, axis) tt_unsqueeze_at(TT_HERE, x, axis)
#define tt_squeeze(x, axis) tt_squeeze_at(TT_HERE, x, axis)
#define tt_broadcast_to(x, shape) tt_broadcast_to_at(TT_HERE, x, shape)
#define tt_slice(x, axis, start, stop, step) tt_slice_at(TT_HERE, x, axis, start, stop, step)
#define tt_select(x, axis, index) tt_select_at(TT_HERE, x, axis, index)
#define tt_pad(x, pads, mode, value) tt_pad_at(TT_HERE, x, pads, mode, value)
#define tt_concat(xs, n, axis) tt_concat_at(TT_HERE, xs, n, axis)
#define tt_stack(xs, n, axis) tt_stack_at(TT_HERE, xs, n, axis)
#define tt_split(x, n, axis, out) tt_split_at(TT_HERE, x, n, axis, out)
#define tt_flip(x, axes) tt_flip_at(TT_HERE, x, axes)
#define tt_roll(x, shifts, axes) tt_roll_at(TT_HERE, x, shifts, axes)
#define tt_repeat(x, repeats) tt_repeat_at(TT_HERE, x, repeats)
#define tt_repeat_interleave(x, repeats, axis) tt_repeat_interleave_at(TT_HERE, x, repeats, axis)
#define tt_diagonal(x, offset, axis1, axis2) tt_diagonal_at(TT_HERE, x, offset, axis1, axis2)
#define tt_tril(x, diagonal) tt_tril_at(TT_HERE, x, diagonal)
#define tt_triu(x, diagonal) tt_triu_at(TT_HERE, x, diagonal)
#define tt_unfold(x, axis, size, step) tt_unfold_at(TT_HERE, x, axis, size, step)
#define tt_pixel_shuffle(x, factor) tt_pixel_shuffle_at(TT_HERE, x, factor)
#define tt_pixel_unshuffle(x, factor) tt_pixel_unshuffle_at(TT_HERE, x, factor)

/* -- Index. An index outside of 0 .. dim-1 reads 0 and writes nothing -------------------------------------------------- */

TT_API tt_val tt_gather_at(tt_here, tt_val x, int axis, tt_val index);     /* y[..p..] = x[..index[..p..]..], as torch.gather */
TT_API tt_val tt_scatter_add_at(tt_here, tt_val x, int axis, tt_val index, tt_val src);  /* x plus src[..p..] at index[..p..] */
TT_API tt_val tt_index_select_at(tt_here, tt_val x, int axis, tt_val index);   /* index [n]: those slices of x */
TT_API tt_val tt_one_hot_at(tt_here, tt_val index, int64_t classes, tt_dtype dtype);     /* [*] -> [*,classes] */
TT_API tt_val tt_argsort_at(tt_here, tt_val x, int axis, bool descending); /* i64, stable */
TT_API void tt_sort_at(tt_here, tt_val x, int axis, bool descending, tt_val *values, tt_val *indices);
TT_API void tt_topk_at(tt_here, tt_val x, int64_t k, int axis, bool largest, tt_val *values, tt_val *indices);   /* in order */
/* `size` entries along the axis from `start` on, an integer of rank 0 that is known only when the program runs; start is clamped into range. update: x with those of u [.., size, ..] in
 * their place. */
TT_API tt_val tt_dynamic_slice_at(tt_here, tt_val x, int axis, tt_val start, int64_t size);
TT_API tt_val tt_dynamic_update_slice_at(tt_here, tt_val x, int axis, tt_val start, tt_val u);
#define tt_dynamic_slice(x, axis, start, size) tt_dynamic_slice_at(TT_HERE, x, axis, start, size)
#define tt_dynamic_update_slice(x, axis, start, u) tt_dynamic_update_slice_at(TT_HERE, x, axis, start, u)
#define tt_gather(x, axis, index) tt_gather_at(TT_HERE, x, axis, index)
#define tt_scatter_add(x, axis, index, src) tt_scatter_add_at(TT_HERE, x, axis, index, src)
#define tt_index_select(x, axis, index) tt_index_select_at(TT_HERE, x, axis, index)
#define tt_one_hot(index, classes, dtype) tt_one_hot_at(TT_HERE, index, classes, dtype)
#define tt_argsort(x, axis, descending) tt_argsort_at(TT_HERE, x, axis, descending)
#define tt_sort(x, axis, descending, values, indices) tt_sort_at(TT_HERE, x, axis, descending, values, indices)
#define tt_topk(x, k, axis, largest, values, indices) tt_topk_at(TT_HERE, x, k, axis, largest, values, indices)

/* -- Products ---------------------------------------------------------------------------------------------------------- */

TT_API tt_val tt_matmul_at(tt_here, tt_val a, tt_val b);                   /* torch.matmul: vectors, matrices, batches that broadcast */
TT_API tt_val tt_einsum_at(tt_here, const char *equation, const tt_val *xs, int n);      /* one or two operands, "bthd,bshd->bhts"; no ellipsis */
#define tt_matmul(a, b) tt_matmul_at(TT_HERE, a, b)
#define tt_einsum(equation, xs, n) tt_einsum_at(TT_HERE, equation, xs, n)

#endif
