// Weights: from the configuration records to logical tensors that point into the archive.
#include "frontend/pt2_weights.h"

#include <algorithm>
#include <cstring>

#include <fmt/format.h>

#include "base/checked.h"
#include "base/error.h"

namespace shardwright::frontend {
namespace {

constexpr int64_t kStridedLayout = 7;

}  // namespace

std::optional<DType> dtype_of_number(int64_t number) {
  switch (number) {
    case 1:
      return DType::kU8;
    case 2:
      return DType::kI8;
    case 3:
      return DType::kI16;
    case 4:
      return DType::kI32;
    case 5:
      return DType::kI64;
    case 6:
      return DType::kF16;
    case 7:
      return DType::kF32;
    case 8:
      return DType::kF64;
    case 12:
      return DType::kBool;
    case 13:
      return DType::kBF16;
    default:
      return std::nullopt;
  }
}

TensorType type_of(const Field& meta, const Symbols& symbols) {
  TensorType type;
  const int64_t number = meta["dtype"].integer();
  const auto dtype = dtype_of_number(number);
  if (!dtype)
    throw Error(
        ErrorCode::kUnsupported,
        fmt::format(
            "{} is PyTorch's dtype number {}; supported are float32, bfloat16, float16, float64, "
            "int64, int32, int16, int8, uint8 and bool",
            meta["dtype"].path(), number));
  type.dtype = *dtype;
  const Field sizes = meta["sizes"];
  if (!sizes.is_array() || sizes.size() > kMaxDims)
    sizes.broken(fmt::format("a list of at most {} sizes", kMaxDims));
  int64_t count = 1;
  for (size_t i = 0; i < sizes.size(); ++i) {
    type.shape.push_back(symbols.integer(sizes[i]));
    if (type.shape.back() < 0) sizes[i].broken("a size of at least 0");
    count = checked_mul(count, std::max<int64_t>(type.shape.back(), 1));
  }
  (void)checked_mul(count, 8);
  return type;
}

void Weights::open(const std::string& program) {
  weights_.clear(), constants_.clear(), by_storage_.clear();
  read_config("weights", program, weights_);
  read_config("constants", program, constants_);
}

void Weights::read_config(const std::string& folder, const std::string& program,
                          std::map<std::string, Entry>& entries) {
  const std::string record = fmt::format("data/{}/{}_{}_config.json", folder, program, folder);
  if (!archive_.has(record)) {
    if (archive_.has(fmt::format("data/{}/{}.pt", folder, program)))
      throw Error(ErrorCode::kUnsupported, archive_.name() +
                                               ": its weights are pickled (written by torch <= "
                                               "2.8); export again with torch >= 2.9");
    return;
  }
  const Symbols numbers(archive_.name());  // what is stored has fixed sizes
  const Json json = parse_json(archive_.read(record), archive_.name() + ": " + record);
  const Field config = Field(json, archive_.name() + ": " + record)["config"];
  for (const auto& [name, unused] : config.json().items()) {
    const Field field = config[name.c_str()];
    if (field["use_pickle"].boolean())
      throw Error(ErrorCode::kUnsupported,
                  fmt::format("{}: tensor '{}' is pickled; it is a tensor subclass or a custom "
                              "object: replace it by a plain "
                              "tensor and export again",
                              archive_.name(), name));
    const Field meta = field["tensor_meta"];
    Entry entry;
    entry.record = fmt::format("data/{}/{}", folder, field["path_name"].text());
    entry.type = type_of(meta, numbers);
    const Field strides = meta["strides"];
    for (size_t i = 0; i < strides.size(); ++i)
      entry.strides.push_back(numbers.integer(strides[i]));
    if (entry.strides.size() != entry.type.shape.size()) strides.broken("one stride for each size");
    entry.offset = numbers.integer(meta["storage_offset"]);
    entry.trainable = meta.has("requires_grad") && meta["requires_grad"].boolean();
    if (meta["layout"].integer() != kStridedLayout) meta["layout"].broken("7 (strided)");
    entries.emplace(name, std::move(entry));
  }
}

int Weights::tensor(const std::string& name, bool in_constants, ir::InputRole role) {
  auto& entries = in_constants ? constants_ : weights_;
  const auto found = entries.find(name);
  if (found == entries.end())
    throw Error(ErrorCode::kBrokenFile,
                fmt::format("{}: the archive has no {} '{}'", archive_.name(),
                            in_constants ? "constant" : "weight", name));
  if (found->second.index < 0) found->second.index = add(name, found->second, role);
  return found->second.index;
}

// Bytes from the first to one past the last element; CHECKs nothing, throws where it lies outside
// of the record.
static void check_extent(const std::string& what, const TensorType& type, const Strides& strides,
                         int64_t offset, int64_t record_bytes) {
  if (offset < 0) throw Error(ErrorCode::kBrokenFile, what + " starts before its record");
  int64_t last = offset;
  for (size_t i = 0; i < strides.size(); ++i) {
    if (strides[i] < 0) throw Error(ErrorCode::kBrokenFile, what + " has a negative stride");
    if (type.shape[i] > 0) last = checked_add(last, checked_mul(type.shape[i] - 1, strides[i]));
  }
  if (type.count() == 0) return;
  const int64_t need = checked_mul(checked_add(last, 1), dtype_bytes(type.dtype));
  if (need > record_bytes && record_bytes == 0)
    throw Error(ErrorCode::kUnsupported,
                what + " was saved without its values; save the program with its weights");
  if (need > record_bytes)
    throw Error(ErrorCode::kBrokenFile,
                fmt::format("{} needs {} bytes, but its record has {}", what, need, record_bytes));
}

int Weights::find_equal(const std::string& name, const Entry& entry, std::string_view bytes) const {
  for (size_t i = 0; i < module_.tensors.size(); ++i) {
    const ir::LogicalTensor& other = module_.tensors[i];
    if (other.name != name || other.type != entry.type || other.strides != entry.strides ||
        other.offset != entry.offset)
      continue;
    const bool same = other.bytes.size == static_cast<int64_t>(bytes.size()) &&
                      std::memcmp(other.bytes.data, bytes.data(), bytes.size()) == 0;
    if (same) return static_cast<int>(i);
  }
  return -1;
}

int Weights::find_named(const std::string& name, const TensorType& type) const {
  for (size_t i = 0; i < module_.tensors.size(); ++i) {
    const ir::LogicalTensor& other = module_.tensors[i];
    const auto& names = other.other_names;
    if (other.type == type &&
        (other.name == name || std::find(names.begin(), names.end(), name) != names.end()))
      return static_cast<int>(i);
  }
  return -1;
}

int Weights::add(const std::string& name, Entry& entry, ir::InputRole role) {
  std::string key = fmt::format("{}@{}{}", entry.record, entry.offset, to_string(entry.type));
  for (int64_t stride : entry.strides) key += fmt::format(",{}", stride);
  if (const auto found = by_storage_.find(key); found != by_storage_.end()) {
    module_.tensors[static_cast<size_t>(found->second)].other_names.push_back(name);
    return found->second;
  }
  const std::string_view bytes = archive_.read(entry.record);
  if (bytes.empty() && entry.type.count() > 0)
    if (const int index = find_named(name, entry.type); index >= 0) return index;
  check_extent(archive_.name() + ": tensor '" + name + "'", entry.type, entry.strides, entry.offset,
               static_cast<int64_t>(bytes.size()));
  int index = find_equal(name, entry, bytes);
  if (index < 0) {
    index = static_cast<int>(module_.tensors.size());
    ir::LogicalTensor tensor;
    tensor.name = name;
    tensor.type = entry.type;
    tensor.role = role;
    tensor.trainable = entry.trainable;
    tensor.bytes = {archive_.bytes().owner, reinterpret_cast<const std::byte*>(bytes.data()),
                    static_cast<int64_t>(bytes.size())};
    tensor.offset = entry.offset;
    tensor.strides = entry.strides;
    module_.tensors.push_back(std::move(tensor));
  }
  by_storage_.emplace(key, index);
  return index;
}

}  // namespace shardwright::frontend
