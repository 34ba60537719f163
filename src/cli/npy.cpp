// .npy: a magic, a Python dict as text, the bytes.
#include "cli/npy.h"

#include <cstring>
#include <fstream>

#include <fmt/format.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/file.h"

namespace shardwright::cli {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
struct Code {
  const char* text;
  DType dtype;
};
constexpr Code kCodes[] = {{"<f4", DType::kF32}, {"<f2", DType::kF16}, {"<f8", DType::kF64},
                           {"<i8", DType::kI64}, {"<i4", DType::kI32}, {"<i2", DType::kI16},
                           {"|i1", DType::kI8},  {"|u1", DType::kU8},  {"|b1", DType::kBool},
                           {"<u2", DType::kBF16}};

[[noreturn]] void refuse(const std::string& path, const std::string& why) {
  throw Error(ErrorCode::kUsage,
              fmt::format("{}: {}; write it with numpy.save of a C-ordered float or integer array",
                          path, why));
}

// The text between `'key': ` and the end of its value.
std::string_view value_of(std::string_view header, std::string_view key, const std::string& path) {
  const size_t at = header.find(fmt::format("'{}':", key));
  if (at == std::string_view::npos) refuse(path, fmt::format("its header has no '{}'", key));
  std::string_view rest = header.substr(at + key.size() + 3);
  while (!rest.empty() && rest.front() == ' ') rest.remove_prefix(1);
  const size_t end = rest.find(rest.starts_with('(') ? ')' : ',');
  return rest.substr(0, end);
}

}  // namespace

NpyArray read_npy(const std::string& path) {
  const auto file = MappedFile::open(path);
  const std::string_view text(reinterpret_cast<const char*>(file->data()),
                              static_cast<size_t>(file->size()));
  if (text.size() < 12 || !text.starts_with(kMagic)) refuse(path, "not a .npy file");
  const bool long_header = text[6] >= 2;
  uint32_t header_bytes = 0;
  std::memcpy(&header_bytes, text.data() + 8, long_header ? 4 : 2);
  const size_t start = long_header ? 12 : 10;
  if (!range_fits(start, header_bytes, text.size())) refuse(path, "its header is cut short");
  const std::string_view header = text.substr(start, header_bytes);
  NpyArray array;
  const std::string_view descr = value_of(header, "descr", path);
  bool known = false;
  for (const Code& code : kCodes)
    if (descr.size() == 5 && descr.substr(1, 3) == code.text)
      array.type.dtype = code.dtype, known = true;
  if (!known) refuse(path, fmt::format("its dtype is {}", descr));
  if (value_of(header, "fortran_order", path) != "False") refuse(path, "it is in Fortran order");
  const std::string_view shape = value_of(header, "shape", path);
  if (!shape.starts_with('(')) refuse(path, "its shape is no tuple");
  int64_t size = -1, count = 1;
  for (char c : fmt::format("{},", shape.substr(1))) {
    if (c >= '0' && c <= '9') size = checked_add(checked_mul(size < 0 ? 0 : size, 10), c - '0');
    if (c == ',' && size >= 0) {
      array.type.shape.push_back(size);
      count = checked_mul(count, size);
      size = -1;
    }
  }
  const auto bytes = static_cast<uint64_t>(checked_mul(count, dtype_bytes(array.type.dtype)));
  if (!range_fits(start + header_bytes, bytes, text.size())) refuse(path, "its data is cut short");
  array.bytes = {file, file->data() + start + header_bytes, static_cast<int64_t>(bytes)};
  return array;
}

void write_npy(const std::string& path, const TensorType& type, const std::byte* data) {
  const DType stored = type.dtype == DType::kBF16 ? DType::kF32 : type.dtype;
  const char* descr = "<f4";
  for (const Code& code : kCodes)
    if (code.dtype == stored) descr = code.text;
  std::string shape;
  for (int64_t size : type.shape) shape += fmt::format("{}, ", size);
  std::string header =
      fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}", descr, shape);
  header.resize(static_cast<size_t>(round_up(static_cast<int64_t>(header.size()) + 11, 64)) - 11,
                ' ');
  header += '\n';
  std::ofstream out(path, std::ios::binary);
  const auto length = static_cast<uint16_t>(header.size());
  out << kMagic << '\x01' << '\x00' << static_cast<char>(length & 0xff)
      << static_cast<char>(length >> 8) << header;
  if (stored == type.dtype) {
    out.write(reinterpret_cast<const char*>(data), type.bytes());
  } else {
    for (int64_t i = 0; i < type.count(); ++i) {
      const auto value =
          static_cast<float>(load_element(type.dtype, data + i * dtype_bytes(type.dtype)));
      out.write(reinterpret_cast<const char*>(&value), sizeof value);
    }
  }
  out.close();
  if (!out)
    throw Error(ErrorCode::kUsage,
                path + ": can't be written; is the disk full, does the folder exist?");
}

}  // namespace shardwright::cli
