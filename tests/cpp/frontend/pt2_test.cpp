// The .pt2 reader: a small real archive, and the same archive truncated, flipped and altered.
#include "frontend/pt2.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <random>

#include "base/error.h"
#include "frontend/json.h"
#include "frontend/zip.h"
#include "ir/text.h"
#include "ir/verify.h"

namespace shardwright::frontend {
namespace {

std::string golden() {
  std::ifstream file(SHARDWRIGHT_TEST_DATA "/data/mlp.pt2", std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

SharedBytes shared(const std::string& text) {
  std::byte* to = nullptr;
  SharedBytes bytes = SharedBytes::allocate(static_cast<int64_t>(text.size()), &to);
  if (!text.empty()) std::memcpy(to, text.data(), text.size());
  return bytes;
}

// Reads it and returns the error's message; "" if it could be read. Anything but an Error fails the
// test.
std::string message_of(const std::string& text, ErrorCode* code = nullptr) {
  try {
    (void)read_pt2(shared(text), "mlp.pt2");
    return "";
  } catch (const Error& error) {
    if (code) *code = error.code();
    EXPECT_NE(error.code(), ErrorCode::kBug) << error.what();
    return error.what();
  }
}

// The archive with `from` replaced by `to` (of the same length) everywhere; CRCs are mended.
std::string altered(std::string text, const std::string& from, const std::string& to) {
  EXPECT_EQ(from.size(), to.size());
  size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  for (; at != std::string::npos; at = text.find(from, at + 1)) text.replace(at, from.size(), to);
  // Every record's CRC in the central directory.
  const auto le32 = [&](size_t i) {
    uint32_t v;
    std::memcpy(&v, &text[i], 4);
    return v;
  };
  const auto le16 = [&](size_t i) {
    uint16_t v;
    std::memcpy(&v, &text[i], 2);
    return v;
  };
  for (size_t i = text.find("PK\x01\x02"); i != std::string::npos;
       i = text.find("PK\x01\x02", i + 4)) {
    const size_t local = le32(i + 42), size = le32(i + 24);
    const size_t payload = local + 30 + le16(local + 26) + le16(local + 28);
    uint32_t crc = 0xffffffffU;
    for (size_t k = payload; k < payload + size; ++k) {
      crc ^= static_cast<uint8_t>(text[k]);
      for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (0xedb88320U & (0U - (crc & 1U)));
    }
    crc = ~crc;
    std::memcpy(&text[i + 16], &crc, 4);
  }
  return text;
}

TEST(Pt2, ReadsARealArchive) {
  const ir::Module module = read_pt2(shared(golden()), "mlp.pt2");
  ASSERT_EQ(module.graphs.size(), 1U);
  const ir::Graph& graph = module.graphs[0];
  EXPECT_EQ(graph.name, "forward");
  ASSERT_EQ(graph.outputs.size(), 1U);
  EXPECT_EQ(graph.outputs[0].name, "logits");
  EXPECT_EQ(graph.type(graph.outputs[0].value), (TensorType{DType::kF32, {2, 10}}));
  int users = 0;
  for (const ir::Input& input : graph.inputs) {
    if (input.role != ir::InputRole::kUserInput) continue;
    ++users;
    EXPECT_EQ(input.name, "x");
  }
  EXPECT_EQ(users, 1);
  std::vector<std::string> names;
  for (const ir::LogicalTensor& t : module.tensors) names.push_back(t.name);
  EXPECT_NE(std::find(names.begin(), names.end(), "up.weight"), names.end());
  ir::verify(module, graph, ir::Stage::kImported);
  for (const ir::Node& node : graph.nodes)
    EXPECT_NE(graph.describe(node).find("zoo.py:"), std::string::npos) << graph.describe(node);
}

TEST(Pt2, EveryTruncationIsACleanError) {
  const std::string text = golden();
  for (size_t length = 0; length < text.size(); ++length) {
    ErrorCode code{};
    ASSERT_NE(message_of(text.substr(0, length), &code), "") << length;
    ASSERT_EQ(code, ErrorCode::kBrokenFile) << length;
  }
}

// All that a module says but for the elements of its weights, whose records have a CRC each.
std::string described(const ir::Module& module) {
  std::string text = ir::print(module);
  for (const ir::LogicalTensor& tensor : module.tensors)
    text += to_string(tensor.strides) + std::to_string(tensor.offset) +
            std::to_string(tensor.bytes.size);
  return text;
}

// Every bit outside of the weights' elements: an error of a broken file, or (in a time stamp, say)
// a bit that nobody needs.
TEST(Pt2Slow, EveryFlippedBitIsACleanErrorOrMeansNothing) {
  const std::string text = golden();
  const std::string whole = described(read_pt2(shared(text), "mlp.pt2"));
  std::byte* data = nullptr;
  const SharedBytes bytes = SharedBytes::allocate(static_cast<int64_t>(text.size()), &data);
  std::memcpy(data, text.data(), text.size());
  std::vector<bool> is_weight(text.size(), false);
  for (int i = 0; i < 6; ++i) {
    const ZipArchive archive(bytes, "mlp.pt2");
    const std::string_view weight = archive.read("data/weights/weight_" + std::to_string(i));
    const auto begin = reinterpret_cast<const std::byte*>(weight.data()) - data;
    std::fill_n(is_weight.begin() + begin, weight.size(), true);
  }
  int64_t refused = 0;
  for (size_t at = 0; at < text.size(); ++at) {
    for (int bit = 0; bit < 8 && !is_weight[at]; ++bit) {
      data[at] ^= std::byte{1} << bit;
      try {
        ASSERT_EQ(described(read_pt2(bytes, "mlp.pt2")), whole)
            << "byte " << at << " bit " << bit << " was not noticed";
      } catch (const Error& error) {
        ASSERT_EQ(error.code(), ErrorCode::kBrokenFile)
            << "byte " << at << " bit " << bit << ": " << error.what();
        ++refused;
      }
      data[at] ^= std::byte{1} << bit;
    }
  }
  EXPECT_GT(refused, 60000);  // all but padding and fields that a reader has no use for
}

TEST(Pt2, FlippedBitInARecordIsFoundByItsCrc) {
  std::string text = golden();
  text[text.find("torch.ops.aten.linear") + 3] ^= 1;
  const std::string message = message_of(text);
  EXPECT_NE(message.find("record 'models/model.json' is damaged"), std::string::npos) << message;
}

// Structure that is wrong though every checksum is right.
TEST(Pt2, AlteredProgramsAreCleanErrors) {
  const std::string text = golden();
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const size_t begin = text.find("{\"graph_module\""), end = text.find("PK", begin);
  ASSERT_NE(begin, std::string::npos);
  for (int i = 0; i < 300; ++i) {
    std::string json = text.substr(begin, end - begin);
    const size_t at = random() % json.size();
    const char was = json[at];
    std::string changed = text;
    changed[begin + at] = static_cast<char>("0123456789\"{}[]:,ntf-"[random() % 21]);
    if (changed[begin + at] == was) continue;
    (void)message_of(altered(changed, "PK\x01\x02", "PK\x01\x02"));
  }
}

TEST(Pt2, AllUnknownOperatorsAtOnceWithTheirPlace) {
  std::string text =
      altered(golden(), "torch.ops.aten.linear.default", "torch.ops.aten.lineax.default");
  text = altered(text, "torch.ops.aten.layer_norm.default", "torch.ops.mine.layer_norm.default");
  ErrorCode code{};
  const std::string message = message_of(text, &code);
  EXPECT_EQ(code, ErrorCode::kUnsupported);
  EXPECT_NE(message.find("the model uses 2 operators that Shardwright does not know:\n  "
                         "torch.ops.aten.lineax.default (2 times, first in up, "),
            std::string::npos)
      << message;
  EXPECT_NE(message.find("torch.ops.mine.layer_norm.default (1 time, first in norm, "),
            std::string::npos)
      << message;
}

TEST(Pt2, RawFormSaysWhatToDo) {
  ErrorCode code{};
  const std::string message = message_of(altered(golden(), "[\"ATEN\"]", "[\"ATAN\"]"), &code);
  EXPECT_EQ(code, ErrorCode::kUnsupported);
  EXPECT_EQ(message,
            "mlp.pt2: holds the raw form of torch.export; capture with shardwright, or call "
            "ep.run_decompositions({}) before torch.export.save");
}

TEST(Pt2, PickledWeightsAreRefusedByName) {
  const std::string message =
      message_of(altered(golden(), "\"use_pickle\": false", "\"use_pickle\": true "));
  EXPECT_NE(message.find("is pickled; it is a tensor subclass or a custom object"),
            std::string::npos)
      << message;
}

TEST(Json, RefusesDuplicateKeysAndDeepNesting) {
  EXPECT_THROW(parse_json(R"({"a": 1, "a": 2})", "x"), Error);
  EXPECT_THROW(parse_json(std::string(200, '[') + std::string(200, ']'), "x"), Error);
  EXPECT_EQ(parse_json(R"({"a": [1, {"a": 2}]})", "x")["a"][0], 1);
}

}  // namespace
}  // namespace shardwright::frontend
