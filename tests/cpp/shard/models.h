// Small model graphs in canonical form, with weights of small integers: what the sharding tests
// run.
#pragma once

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "base/check.h"
#include "ir/graph.h"
#include "ir/interpret.h"

namespace shardwright::shard {

struct Model {
  ir::Module module;
  ir::RefMap inputs;  // a value for each user input
  const ir::Graph& graph() const { return module.graphs[0]; }
};

struct Dims {
  int64_t batch = 2, tokens = 5, layers = 1, heads = 9, kv_heads = 3, head = 4, hidden = 12,
          ffn = 14, vocab = 19, cache = 8;
  bool data = true;  // false: shapes only
  DType dtype = DType::kF32;
};

// Builds one graph node by node.
class ModelBuilder {
 public:
  explicit ModelBuilder(const Dims& dims, uint64_t seed = 7) : d(dims), random_(seed) {
    model_.module.graphs.emplace_back();
  }

  ir::ValueId input(const std::string& name, DType dtype, Shape shape, int64_t below) {
    ops::RefTensor value(TensorType{dtype, shape});
    for (double& element : value.data)
      element = static_cast<double>(random_() % static_cast<uint64_t>(below));
    model_.inputs[name] = std::move(value);
    return add_input(name, {dtype, std::move(shape)}, ir::InputRole::kUserInput, -1);
  }
  ir::ValueId parameter(const std::string& name, Shape shape) {
    return stored(name, {d.dtype, std::move(shape)}, ir::InputRole::kParameter, true);
  }
  ir::ValueId buffer(const std::string& name, Shape shape) {
    return stored(name, {d.dtype, std::move(shape)}, ir::InputRole::kBuffer, true);
  }
  // 0, 1, 2, ... or small integers.
  ir::ValueId constant(const std::string& name, TensorType type, bool iota = false) {
    return stored(name, std::move(type), ir::InputRole::kConstant, !iota);
  }
  ir::ValueId op(const char* name, std::vector<ir::ValueId> inputs, ops::Attrs attrs = {}) {
    const ops::OpDef* def = ops::find_op(name);
    CHECK(def != nullptr, name);
    size_t tensors = 0;
    for (const ops::Argument& a : ops::arguments_of(*def)) tensors += a.is_tensor() ? 1 : 0;
    while (inputs.size() < tensors) inputs.push_back(ir::kNoValue);
    ops::fill_defaults(*def, &attrs);
    graph().sources.push_back({path, "model.py", static_cast<int>(graph().sources.size()) + 1});
    return ir::append(graph(), *def, std::move(inputs), std::move(attrs),
                      static_cast<int>(graph().sources.size()) - 1);
  }
  void output(const std::string& name, ir::ValueId value,
              ir::OutputRole role = ir::OutputRole::kUserOutput) {
    graph().outputs.push_back({value, role, name});
  }

  ir::ValueId heads_of(ir::ValueId x, int64_t tokens, int64_t heads) {  // -> [B, H, S, hd]
    x = op("reshape", {x}, {{"shape", std::vector<int64_t>{d.batch, tokens, heads, d.head}}});
    return op("permute", {x}, {{"dims", std::vector<int64_t>{0, 2, 1, 3}}});
  }
  ir::ValueId join_heads(ir::ValueId x, int64_t tokens) {
    x = op("permute", {x}, {{"dims", std::vector<int64_t>{0, 2, 1, 3}}});
    return op("reshape", {x}, {{"shape", std::vector<int64_t>{d.batch, tokens, d.heads * d.head}}});
  }
  ir::ValueId rope(ir::ValueId x, ir::ValueId cosine, ir::ValueId sine) {
    const auto half = [&](int64_t begin, int64_t end) {
      return op("slice", {x}, {{"dim", int64_t{-1}}, {"start", begin}, {"end", end}});
    };
    const ir::ValueId low = half(0, d.head / 2), high = half(d.head / 2, d.head);
    const ir::ValueId turned = op("cat", {op("neg", {high}), low}, {{"dim", int64_t{-1}}});
    return op("add", {op("mul", {x, cosine}), op("mul", {turned, sine})});
  }
  ir::ValueId linear(const std::string& name, ir::ValueId x, int64_t out, int64_t in) {
    path = name;
    return op("linear", {x, parameter(name + ".weight", {out, in})});
  }
  ir::ValueId linear_bias(const std::string& name, ir::ValueId x, int64_t out, int64_t in) {
    const ir::ValueId y = linear(name, x, out, in);
    return op("add", {y, parameter(name + ".bias", {out})});
  }

  ir::Graph& graph() { return model_.module.graphs[0]; }
  Model take() { return std::move(model_); }

  const Dims d;
  std::string path = "model";

 private:
  ir::ValueId add_input(const std::string& name, TensorType type, ir::InputRole role, int tensor) {
    const Strides strides = contiguous_strides(type.shape);
    const ir::ValueId value = graph().add_value(std::move(type), name);
    graph().inputs.push_back({value, role, name, {tensor, 0, strides}, {}});
    return value;
  }
  ir::ValueId stored(const std::string& name, TensorType type, ir::InputRole role, bool noise) {
    ir::LogicalTensor tensor;
    tensor.name = name;
    tensor.type = type;
    tensor.role = role;
    tensor.strides = contiguous_strides(type.shape);
    if (d.data) {
      std::byte* bytes = nullptr;
      tensor.bytes = SharedBytes::allocate(type.bytes(), &bytes);
      for (int64_t i = 0; i < type.count(); ++i) {
        const double value = type.shape.empty() ? 2.0  // something to divide by
                             : noise            ? static_cast<double>(random_() % 5) - 2.0
                                                : static_cast<double>(i);
        store_element(type.dtype, bytes + i * dtype_bytes(type.dtype), value);
      }
    }
    model_.module.tensors.push_back(std::move(tensor));
    return add_input(name, std::move(type), role,
                     static_cast<int>(model_.module.tensors.size()) - 1);
  }

  Model model_;
  std::mt19937_64 random_;
};

// A Llama: prefill, or with `decode` one token with a KV cache.
inline Model llama(const Dims& dims, bool decode = false, bool tied = false) {
  ModelBuilder b(dims);
  const Dims& d = b.d;
  const int64_t tokens = decode ? 1 : d.tokens;
  const auto ids = b.input("input_ids", DType::kI64, {d.batch, tokens}, d.vocab);
  const auto position = decode ? b.input("position", DType::kI64, {tokens}, d.cache) : ir::kNoValue;
  const auto embed = b.parameter("embed.weight", {d.vocab, d.hidden});
  const auto cosine = b.constant("cos", {d.dtype, {tokens, d.head}});
  const auto sine = b.constant("sin", {d.dtype, {tokens, d.head}});
  ir::ValueId mask = ir::kNoValue;
  if (decode) {
    const auto columns = b.constant("columns", {DType::kI64, {1, d.cache}}, true);
    const auto rows = b.op("reshape", {position}, {{"shape", std::vector<int64_t>{tokens, 1}}});
    mask = b.op("le", {columns, rows});
  }
  b.path = "embed";
  auto x = b.op("embedding", {embed, ids});
  for (int64_t l = 0; l < d.layers; ++l) {
    const std::string name = "layers." + std::to_string(l);
    b.path = name + ".input_norm";
    auto h = b.op("rms_norm", {x, b.parameter(name + ".norm1", {d.hidden})}, {{"eps", 1e-3}});
    auto q = b.linear(name + ".q_proj", h, d.heads * d.head, d.hidden);
    auto k = b.linear(name + ".k_proj", h, d.kv_heads * d.head, d.hidden);
    auto v = b.linear(name + ".v_proj", h, d.kv_heads * d.head, d.hidden);
    b.path = name + ".attention";
    q = b.rope(b.heads_of(q, tokens, d.heads), cosine, sine);
    k = b.rope(b.heads_of(k, tokens, d.kv_heads), cosine, sine);
    v = b.heads_of(v, tokens, d.kv_heads);
    if (decode) {
      const Shape cache{d.batch, d.kv_heads, d.cache, d.head};
      for (auto* kv : {&k, &v}) {
        const std::string which = name + (kv == &k ? ".k_cache" : ".v_cache");
        *kv = b.op("index_copy", {b.buffer(which, cache), position, *kv}, {{"dim", int64_t{2}}});
        b.output(which, *kv, ir::OutputRole::kBufferMutation);
      }
    }
    auto a = b.op("attention", {q, k, v, mask},
                  {{"is_causal", !decode}, {"group", d.heads / d.kv_heads}});
    a = b.linear(name + ".o_proj", b.join_heads(a, tokens), d.hidden, d.heads * d.head);
    x = b.op("add", {x, a});
    b.path = name + ".post_norm";
    h = b.op("rms_norm", {x, b.parameter(name + ".norm2", {d.hidden})}, {{"eps", 1e-3}});
    auto gate = b.linear(name + ".gate_proj", h, d.ffn, d.hidden);
    auto up = b.linear(name + ".up_proj", h, d.ffn, d.hidden);
    b.path = name + ".mlp";
    auto act = b.op("mul", {b.op("silu", {gate}), up});
    x = b.op("add", {x, b.linear(name + ".down_proj", act, d.hidden, d.ffn)});
  }
  b.path = "norm";
  x = b.op("rms_norm", {x, b.parameter("norm", {d.hidden})}, {{"eps", 1e-3}});
  b.path = "lm_head";
  const auto head = tied ? embed : b.parameter("lm_head.weight", {d.vocab, d.hidden});
  b.output("logits", b.op("linear", {x, head}));
  return b.take();
}

// GPT-2: positions, biases, layer_norm, tied head; and the loss of the next token in parts.
inline Model gpt2(Dims dims) {
  dims.heads = dims.kv_heads = 3;
  dims.hidden = dims.heads * dims.head;
  ModelBuilder b(dims);
  const Dims& d = b.d;
  const auto ids = b.input("input_ids", DType::kI64, {d.batch, d.tokens}, d.vocab);
  const auto labels = b.input("labels", DType::kI64, {d.batch, d.tokens}, d.vocab);
  const auto positions = b.constant("positions", {DType::kI64, {1, d.tokens}}, true);
  const auto wte = b.parameter("wte", {d.vocab, d.hidden});
  auto x = b.op("add", {b.op("embedding", {wte, ids}),
                        b.op("embedding", {b.parameter("wpe", {d.cache, d.hidden}), positions})});
  const auto norm = [&](const std::string& name, ir::ValueId y) {
    return b.op("layer_norm", {y, b.parameter(name + ".weight", {d.hidden}),
                               b.parameter(name + ".bias", {d.hidden})});
  };
  for (int64_t l = 0; l < d.layers; ++l) {
    const std::string name = "h." + std::to_string(l);
    auto h = norm(name + ".ln_1", x);
    ir::ValueId qkv[3];
    for (int i = 0; i < 3; ++i)
      qkv[i] =
          b.heads_of(b.linear_bias(name + ".c_attn" + std::to_string(i), h, d.hidden, d.hidden),
                     d.tokens, d.heads);
    auto a =
        b.op("attention", {qkv[0], qkv[1], qkv[2]}, {{"is_causal", true}, {"group", int64_t{1}}});
    x = b.op("add",
             {x, b.linear_bias(name + ".c_proj", b.join_heads(a, d.tokens), d.hidden, d.hidden)});
    h = norm(name + ".ln_2", x);
    h = b.op("gelu", {b.linear_bias(name + ".c_fc", h, d.ffn, d.hidden)},
             {{"approximate", std::string("tanh")}});
    x = b.op("add", {x, b.linear_bias(name + ".mlp_proj", h, d.hidden, d.ffn)});
  }
  const auto logits = b.op("linear", {norm("ln_f", x), wte});
  const ops::Attrs over{{"dim", std::vector<int64_t>{-1}}, {"keepdim", true}};
  const auto shifted = b.op("sub", {logits, b.op("amax", {logits}, over)});
  const auto total = b.op("log", {b.op("sum", {b.op("exp", {shifted})}, over)});
  const auto index =
      b.op("reshape", {labels}, {{"shape", std::vector<int64_t>{d.batch, d.tokens, 1}}});
  const auto picked = b.op("gather", {shifted, index}, {{"dim", int64_t{-1}}});
  b.output("loss", b.op("sum", {b.op("sub", {total, picked})}));
  b.output("logits", logits);
  return b.take();
}

// BERT: attention in parts (matmul, softmax), norms after the residual, a classifier of 3 classes.
inline Model bert(Dims dims) {
  dims.heads = dims.kv_heads = 4;
  dims.hidden = dims.heads * dims.head;
  ModelBuilder b(dims);
  const Dims& d = b.d;
  const auto ids = b.input("input_ids", DType::kI64, {d.batch, d.tokens}, d.vocab);
  const auto mask = b.input("attention_mask", DType::kF32, {d.batch, d.tokens}, 2);
  auto x = b.op("embedding", {b.parameter("word", {d.vocab, d.hidden}), ids});
  const auto bias =
      b.op("reshape", {mask}, {{"shape", std::vector<int64_t>{d.batch, 1, 1, d.tokens}}});
  const auto norm = [&](const std::string& name, ir::ValueId y) {
    return b.op("layer_norm", {y, b.parameter(name + ".weight", {d.hidden}),
                               b.parameter(name + ".bias", {d.hidden})});
  };
  for (int64_t l = 0; l < d.layers; ++l) {
    const std::string name = "layer." + std::to_string(l);
    const auto part = [&](const char* which) {
      return b.heads_of(b.linear_bias(name + which, x, d.hidden, d.hidden), d.tokens, d.heads);
    };
    const auto q = part(".query"), k = part(".key"), v = part(".value");
    auto scores =
        b.op("matmul", {q, b.op("permute", {k}, {{"dims", std::vector<int64_t>{0, 1, 3, 2}}})});
    scores = b.op("add", {b.op("div", {scores, b.constant(name + ".scale", {d.dtype, {}})}), bias});
    const auto a = b.op("matmul", {b.op("softmax", {scores}, {{"dim", int64_t{-1}}}), v});
    x = norm(name + ".ln1", b.op("add", {x, b.linear_bias(name + ".out", b.join_heads(a, d.tokens),
                                                          d.hidden, d.hidden)}));
    const auto h = b.op("gelu", {b.linear_bias(name + ".up", x, d.ffn, d.hidden)});
    x = norm(name + ".ln2", b.op("add", {x, b.linear_bias(name + ".down", h, d.hidden, d.ffn)}));
  }
  const auto first =
      b.op("slice", {x}, {{"dim", int64_t{1}}, {"start", int64_t{0}}, {"end", int64_t{1}}});
  const auto flat = b.op("reshape", {first}, {{"shape", std::vector<int64_t>{d.batch, d.hidden}}});
  b.output("classes", b.linear_bias("classifier", b.op("tanh", {flat}), 3, d.hidden));
  b.output("hidden", x);
  return b.take();
}

}  // namespace shardwright::shard
